// A dataset's report as the cache keeps it beside the examples.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "data/dataset_report.h"

namespace qlora::io {
class JsonNode;
}

namespace qlora::data {

// All of it but path and format, which are the recipe's.
nlohmann::ordered_json stored_report(const DatasetReport& report);
// The same back. FormatError if it is none.
DatasetReport report_from(const io::JsonNode& stored);

}  // namespace qlora::data

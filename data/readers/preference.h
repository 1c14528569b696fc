// Rows of preference data (DPO, ORPO, KTO, reward models), told by their keys: a chosen and a
// rejected answer, two answers to compare, several with scores, or one with a label that says
// whether it was liked. Read as demonstrations they would teach what they reject. The first are
// what format preference reads (read_preference.cpp).
#pragma once

#include "data/example.h"
#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// FormatError that names the keys if `row`, an object, is preference data; nothing if
// `dataset.fields` maps one of the keys, as whoever trains on the preferred answers alone does.
void refuse_preference_data(const nlohmann::ordered_json& row, const DatasetOptions& dataset);

}  // namespace qlora::data

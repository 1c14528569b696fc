// metrics.jsonl by column.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace qlora::recipes {

struct MetricsColumns {
  // key -> array of numbers, all as long as "step"; null where a line lacks the key.
  nlohmann::ordered_json steps = nlohmann::ordered_json::object();
  nlohmann::ordered_json evaluations = nlohmann::ordered_json::object();
};

// Of the text of a metrics.jsonl. Lines that are cut off or no metrics are passed over.
MetricsColumns metrics_columns(const std::string& text);

// The numbers of a column, without gaps; none if there is no such key.
std::vector<double> numbers_of(const nlohmann::ordered_json& columns, const char* key);

}  // namespace qlora::recipes

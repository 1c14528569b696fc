#include "recipes/report/metrics_columns.h"

#include <sstream>
#include <vector>

#include "io/json_text.h"

namespace qlora::recipes {
namespace {
using Json = nlohmann::ordered_json;

void add_line(const Json& line, Json& columns) {
  const size_t before = columns.contains("step") ? columns["step"].size() : 0;
  for (const auto& [key, value] : line.items()) {
    if (!columns.contains(key)) columns[key] = std::vector<Json>(before);
    columns[key].push_back(value.is_number() ? value : Json(nullptr));
  }
  for (auto& column : columns)
    if (column.size() == before) column.push_back(nullptr);
}

}  // namespace

MetricsColumns metrics_columns(const std::string& text) {
  MetricsColumns columns;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const Json json = io::ordered_json_or_discarded(line);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
    if (json.contains("eval_loss"))
      add_line(json, columns.evaluations);
    else if (json.contains("loss"))
      add_line(json, columns.steps);
  }
  return columns;
}

std::vector<double> numbers_of(const Json& columns, const char* key) {
  std::vector<double> numbers;
  if (!columns.contains(key)) return numbers;
  for (const Json& value : columns[key])
    if (value.is_number()) numbers.push_back(value.get<double>());
  return numbers;
}

}  // namespace qlora::recipes

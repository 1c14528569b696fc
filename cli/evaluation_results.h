// What `qlora evaluate` tells of the models it evaluated.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "trainer/evaluate.h"

namespace qlora::cli {

// What one model does on all rows.
struct EvaluationResult {
  std::string name;
  std::vector<std::string> datasets;  // their paths, by the rows' source
  trainer::Evaluation loss;           // of pairs of answers: of the chosen ones
  std::optional<trainer::ExactMatch> exact;
  std::optional<int64_t> likelier;  // pairs whose chosen answer is likelier than the rejected one
};

void print_table(const std::vector<EvaluationResult>& results);

// The first `count` answers beside what was expected, a line each. Of several datasets each row's
// is named.
void print_answers(const std::vector<EvaluationResult>& results, int64_t count);

nlohmann::ordered_json to_json(const EvaluationResult& result);

}  // namespace qlora::cli

#include "recipes/run/long_rows.h"

#include <algorithm>

#include "base/error.h"
#include "base/warn_once.h"
#include "data/row_source.h"
#include "model/position_limit.h"

namespace qlora::recipes {

void check_row_lengths(const data::Examples& examples,
                       const std::vector<data::DatasetOptions>& sets,
                       const model::Architecture& architecture) {
  const model::PositionLimit limit = model::position_limit(architecture);
  const auto is_long = [&](const data::ExampleView& example) {
    return example.length() > limit.tokens;
  };
  const auto found = std::ranges::find_if(examples, is_long);
  if (found == examples.end()) return;
  const data::ExampleView first = *found;
  const auto place = [&] {
    return data::location_of_row(sets.at(static_cast<size_t>(first.source)), first.row);
  };
  if (architecture.embedding.positions.present())
    fail<ConfigError>(
        "{}: the row has {} tokens, and the model has learnt {} positions and no more ({} such "
        "rows in all). Set data.sequence_length to {} or less",
        place(), first.length(), limit.tokens, std::ranges::count_if(examples, is_long),
        limit.tokens);
  log::warning_once(
      "{}: the row has {} tokens, and {}: it has learnt no positions beyond ({} such rows in all). "
      "Set data.sequence_length to {} or less",
      place(), first.length(), limit.sentence(), std::ranges::count_if(examples, is_long),
      limit.tokens);
}

}  // namespace qlora::recipes

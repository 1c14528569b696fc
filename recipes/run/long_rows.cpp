#include "recipes/run/long_rows.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/warn_once.h"

namespace qlora::recipes {

void check_row_lengths(const data::Examples& examples,
                       const std::vector<data::DatasetOptions>& sets,
                       const model::Architecture& architecture) {
  const auto is_long = [&](const data::ExampleView& example) {
    return example.length() > architecture.max_positions;
  };
  const auto found = std::ranges::find_if(examples, is_long);
  if (found == examples.end() || architecture.alibi.present()) return;
  const data::ExampleView first = *found;
  const auto place = [&] {
    const std::string& path = sets.at(static_cast<size_t>(first.source)).path;
    // Of a folder or pattern the rows are counted through all of its files.
    return fmt::format("{}{}{}", path, std::filesystem::is_regular_file(path) ? ":" : ", row ",
                       first.row + 1);
  };
  if (architecture.embedding.positions.present())
    fail<ConfigError>(
        "{}: the row has {} tokens, and the model has learnt {} positions and no more ({} such "
        "rows in all). Set data.sequence_length to {} or less",
        place(), first.length(), architecture.max_positions,
        std::ranges::count_if(examples, is_long), architecture.max_positions);
  log::warning_once(
      "{}: the row has {} tokens, and max_position_embeddings of the model is {}: it has learnt "
      "no positions beyond ({} such rows in all). Set data.sequence_length to {} or less",
      place(), first.length(), architecture.max_positions, std::ranges::count_if(examples, is_long),
      architecture.max_positions);
}

}  // namespace qlora::recipes

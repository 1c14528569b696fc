#include "data/trained_prompts.h"

#include <algorithm>

namespace qlora::data {

TrainedPrompts trained_prompts(const DataOptions& options) {
  TrainedPrompts prompts;
  if (options.train.empty()) return prompts;
  const DatasetOptions& first = options.train.front();
  const auto all_have = [&](auto member, const std::string& value) {
    return std::ranges::all_of(options.train,
                               [&](const DatasetOptions& set) { return set.*member == value; });
  };
  prompts.are_raw = all_have(&DatasetOptions::format, "completion");
  if (prompts.are_raw && all_have(&DatasetOptions::separator, first.separator))
    prompts.separator = first.separator;
  if (all_have(&DatasetOptions::system, first.system)) prompts.system = first.system;
  return prompts;
}

}  // namespace qlora::data

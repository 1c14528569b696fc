#include "model/skip_modules.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <vector>

#include "base/error.h"
#include "quant/make_frozen_weight.h"

namespace qlora::model {

void require_skip_modules(const quant::QuantizationOptions& options,
                          const Architecture& architecture, const std::string& key) {
  const std::vector<std::string> linear = architecture.linear_modules();
  std::vector<std::string> all = linear;
  all.push_back(architecture.embedding.names.hugging_face);
  all.push_back(architecture.head.names.hugging_face);
  for_each_norm(architecture,
                [&](const std::string& module, const NormSpec&) { all.push_back(module); });
  const std::vector<std::string> usual = quant::QuantizationOptions().skip_modules;
  for (const std::string& entry : options.skip_modules) {
    quant::QuantizationOptions alone;
    alone.skip_modules = {entry};
    const auto named = [&](const std::string& module) { return quant::is_skipped(alone, module); };
    if (std::ranges::count(usual, entry) > 0 || std::ranges::any_of(all, named)) continue;
    std::set<std::string> names;
    for (const std::string& module : linear) names.insert(module.substr(module.rfind('.') + 1));
    fail<ConfigError>(
        "{}: '{}' names no module of the model; write a full path, such as {}, or a part of it "
        "between dots, such as {}",
        key, entry, linear.front(), fmt::join(names, ", "));
  }
}

}  // namespace qlora::model

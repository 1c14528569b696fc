#include "lora/expert_names.h"

#include <algorithm>
#include <cctype>
#include <string_view>

namespace qlora::lora {
namespace {

constexpr std::string_view kExperts = ".experts.";
constexpr std::string_view kRouters[] = {".mlp.gate", ".mlp.router", ".block_sparse_moe.router"};

}  // namespace

std::optional<ExpertName> expert_name(const std::string& module) {
  const size_t at = module.find(kExperts);
  if (at == std::string::npos) return std::nullopt;
  const size_t number = at + kExperts.size(), dot = module.find('.', number);
  constexpr size_t kMostDigits = 9;
  if (dot == std::string::npos || dot == number || dot - number > kMostDigits) return std::nullopt;
  const std::string digits = module.substr(number, dot - number);
  if (!std::ranges::all_of(digits, [](unsigned char c) { return std::isdigit(c) != 0; }))
    return std::nullopt;
  return ExpertName{module.substr(0, number - 1), module.substr(dot + 1), std::stoll(digits)};
}

bool is_parameter(const std::string& module) {
  return expert_name(module) || std::ranges::any_of(kRouters, [&](std::string_view router) {
           return module.ends_with(router);
         });
}

std::string parameter_path(const std::string& module) {
  const auto expert = expert_name(module);
  return expert ? expert->stack + "." + expert->parameter : module + ".weight";
}

}  // namespace qlora::lora

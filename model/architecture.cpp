#include "model/architecture.h"

#include <fmt/format.h>

#include "base/error.h"

namespace qlora::model {
namespace {

template <typename Block>
auto& first_branch(Block& block, bool attends) {
  for (auto& branch : block.branches)
    if ((branch.attention() != nullptr) == attends) return branch;
  fail<Error>("a block has no {}", attends ? "attention" : "MLP");
}

}  // namespace

Branch& BlockSpec::attention_branch() { return first_branch(*this, true); }
Branch& BlockSpec::mlp_branch() { return first_branch(*this, false); }
AttentionSpec& BlockSpec::attention() { return std::get<AttentionSpec>(attention_branch().mixer); }
const AttentionSpec& BlockSpec::attention() const { return *first_branch(*this, true).attention(); }
MlpSpec& BlockSpec::mlp() { return std::get<MlpSpec>(mlp_branch().mixer); }
const MlpSpec& BlockSpec::mlp() const { return *first_branch(*this, false).mlp(); }

StackSpec stack_of(BlockSpec block, int64_t num_layers, NormSpec final_norm) {
  StackSpec stack;
  stack.kinds.push_back(std::move(block));
  stack.kind_of.assign(static_cast<size_t>(num_layers), 0);
  stack.final_norm = std::move(final_norm);
  return stack;
}

std::string Architecture::module(int64_t layer, const TensorNames& names) const {
  return fmt::format("{}{}.{}", decoder.prefix.hugging_face, layer, names.hugging_face);
}

std::vector<std::string> Architecture::linear_modules() const {
  std::vector<std::string> modules;
  for_each_linear(*this,
                  [&](const std::string& module, const LinearSpec&) { modules.push_back(module); });
  return modules;
}

int64_t Architecture::numbers_of_layer(int64_t layer) const {
  int64_t numbers = 0;
  block(layer).for_each_linear([&](const LinearSpec& linear) { numbers += linear.numbers(); });
  return numbers;
}

}  // namespace qlora::model

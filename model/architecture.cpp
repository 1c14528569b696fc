#include "model/architecture.h"

#include <fmt/format.h>

#include "base/error.h"
#include "model/expert_tensors.h"

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

LinearSpec ExpertsSpec::of_expert(const LinearSpec& linear, int64_t expert) const {
  LinearSpec own = linear;
  own.names.hugging_face = numbered(own.names.hugging_face, expert);
  return own;
}

std::vector<std::vector<LinearSpec>> Branch::groups() const {
  if (const AttentionSpec* a = attention()) {
    if (a->shape.cross) return {a->in, a->of_encoder, {a->out}};
    return {a->in, {a->out}};
  }
  if (const MlpSpec* m = mlp()) return {m->in, {m->out}};
  const ExpertsSpec& e = *experts();
  std::vector<std::vector<LinearSpec>> all = {{e.router}};
  for (int64_t i = 0; i < e.routing.experts; ++i) {
    all.push_back({e.of_expert(e.gate_up, i)});
    all.push_back({e.of_expert(e.down, i)});
  }
  if (e.shared) {
    all.push_back(e.shared->in);
    all.push_back({e.shared->out});
  }
  if (e.shared_gate.present()) all.push_back({e.shared_gate});
  return all;
}

int64_t Branch::out_width() const {
  if (const AttentionSpec* a = attention()) return a->out.in;
  return mlp() ? mlp()->out.in : experts()->down.in;
}

StackSpec stack_of(BlockSpec block, int64_t num_layers, NormSpec final_norm) {
  StackSpec stack;
  stack.kinds.push_back(std::move(block));
  stack.kind_of.assign(static_cast<size_t>(num_layers), 0);
  stack.final_norm = std::move(final_norm);
  return stack;
}

std::string Architecture::module(int64_t layer, const TensorNames& names) const {
  return fmt::format("{}{}.{}", stack_of(layer).prefix.hugging_face, index_in_stack(layer),
                     names.hugging_face);
}

std::vector<std::string> Architecture::linear_modules() const {
  std::vector<std::string> modules;
  for_each_linear(*this,
                  [&](const std::string& module, const LinearSpec&) { modules.push_back(module); });
  return modules;
}

int64_t BlockSpec::active_numbers() const {
  int64_t numbers = 0;
  for (const Branch& branch : branches) {
    for (const std::vector<LinearSpec>& group : branch.groups())
      for (const LinearSpec& linear : group) numbers += linear.numbers();
    if (const ExpertsSpec* e = branch.experts())
      numbers -=
          (e->routing.experts - e->routing.active) * (e->gate_up.numbers() + e->down.numbers());
  }
  return numbers;
}

}  // namespace qlora::model

#include "trainer/evaluation_passes.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>

#include "base/progress.h"
#include "trainer/forward_input.h"
#include "trainer/loss.h"

namespace qlora::trainer {
namespace {

using Visit = std::function<void(const data::MicroBatch&, const std::vector<int32_t>& targets,
                                 const std::vector<float>& losses)>;

// Which examples each pass has.
std::vector<std::vector<int64_t>> dealt(const data::Examples& examples, int64_t tokens_per_pass) {
  std::vector<std::vector<int64_t>> passes;
  int64_t tokens = 0;
  for (size_t i = 0; i < examples.size();) {
    const size_t end = i + (examples[i].side == data::Side::kChosen ? 2 : 1);
    int64_t more = 0;
    for (size_t e = i; e < end; ++e) more += examples.at(e).length();
    if (passes.empty() || tokens + more > tokens_per_pass) {
      passes.emplace_back();
      tokens = 0;
    }
    for (; i < end; ++i) passes.back().push_back(static_cast<int64_t>(i));
    tokens += more;
  }
  return passes;
}

std::vector<int32_t> targets_of(const data::MicroBatch& batch, const EvaluationPasses& passes) {
  return passes.targets ? passes.targets(batch) : batch.targets;
}

std::vector<float> losses_of(model::CausalLm& model, const data::MicroBatch& batch,
                             const std::vector<int32_t>& targets, bool adapters_enabled) {
  model::ForwardInput input = forward_input(batch);
  input.adapters_enabled = adapters_enabled;
  return token_losses(model.hidden(input), targets, model.head, model.context(input),
                      model.architecture().logit_softcap);
}

void visit_all(model::CausalLm& model, const data::Examples& examples,
               const EvaluationPasses& passes, Progress& progress, const Visit& visit) {
  for (const std::vector<int64_t>& indices : dealt(examples, passes.tokens_per_pass)) {
    const data::MicroBatch batch = data::make_micro_batch(examples, indices);
    const std::vector<int32_t> targets = targets_of(batch, passes);
    visit(batch, targets, losses_of(model, batch, targets, passes.adapters_enabled));
    progress.advance(static_cast<int64_t>(indices.size()));
  }
}

using PassLosses = std::vector<std::vector<float>>;

std::vector<float> losses_of_pass(model::CausalLm& model, const data::Examples& examples,
                                  const std::vector<int64_t>& indices,
                                  const EvaluationPasses& passes) {
  const data::MicroBatch batch = data::make_micro_batch(examples, indices);
  return losses_of(model, batch, targets_of(batch, passes), passes.adapters_enabled);
}

// Of the passes that this rank computes; those of the others are empty. On a base that the ranks
// keep together they pass in rounds, of one each, and leave behind one: where the last is
// short, the other ranks pass what the last of it does, for nothing. Throws Stopped on all ranks.
PassLosses losses_of_own(model::CausalLm& model, const data::Examples& examples,
                         const EvaluationPasses& passes,
                         const std::vector<std::vector<int64_t>>& all, Progress& progress) {
  distributed::Group& group = *passes.group;
  const bool in_rounds = model.placement.on_ranks();
  const auto rank = static_cast<size_t>(group.rank()), size = static_cast<size_t>(group.size());
  PassLosses losses(all.size());
  std::optional<Stopped> stopped;
  for (size_t p = 0; p < all.size(); ++p) {
    if (p % size == rank && (in_rounds || !stopped))
      losses[p] = losses_of_pass(model, examples, all[p], passes);
    try {
      progress.advance(static_cast<int64_t>(all[p].size()));
    } catch (const Stopped& here) {
      stopped = here;
    }
    const bool ends_round = p % size + 1 == size || p + 1 == all.size();
    if (!in_rounds || !ends_round) continue;
    if (p % size < rank) losses_of_pass(model, examples, all[p], passes);
    if (group.any(stopped.has_value())) break;
  }
  if (group.any(stopped.has_value())) throw stopped.value_or(Stopped{passes.name, 0, 0, ""});
  return losses;
}

// Of each pass one rank has the losses; then all have.
void hand_round(PassLosses& losses, distributed::Group& group) {
  const at::Tensor counts = at::zeros({std::ssize(losses)}, at::kDouble);
  auto* count = counts.mutable_data_ptr<double>();
  for (size_t p = 0; p < losses.size(); ++p) count[p] = static_cast<double>(losses[p].size());
  group.sum(counts);
  const at::Tensor all = at::zeros({static_cast<int64_t>(counts.sum().item<double>())}, at::kFloat);
  auto* next = all.mutable_data_ptr<float>();
  for (size_t p = 0; p < losses.size(); ++p) {
    std::ranges::copy(losses[p], next);
    next += static_cast<ptrdiff_t>(count[p]);
  }
  group.sum(all);
  next = all.mutable_data_ptr<float>();
  for (size_t p = 0; p < losses.size(); ++p) {
    auto* end = next + static_cast<ptrdiff_t>(count[p]);
    losses[p].assign(next, end);
    next = end;
  }
}

// Before all are shown, a rank makes the batches of its own passes alone.
void visit_dealt(model::CausalLm& model, const data::Examples& examples,
                 const EvaluationPasses& passes, Progress& progress, const Visit& visit) {
  const auto all = dealt(examples, passes.tokens_per_pass);
  PassLosses losses = losses_of_own(model, examples, passes, all, progress);
  hand_round(losses, *passes.group);
  for (size_t p = 0; p < all.size(); ++p) {
    const data::MicroBatch batch = data::make_micro_batch(examples, all[p]);
    visit(batch, targets_of(batch, passes), losses[p]);
  }
}

}  // namespace

void for_each_pass(model::CausalLm& model, const data::Examples& examples,
                   const EvaluationPasses& passes, const Visit& visit) {
  at::NoGradGuard no_grad;
  Progress progress(passes.name, static_cast<int64_t>(examples.size()), "rows");
  if (passes.group != nullptr && passes.group->size() > 1)
    return visit_dealt(model, examples, passes, progress, visit);
  progress.leave_if_stop_wanted();
  visit_all(model, examples, passes, progress, visit);
}

}  // namespace qlora::trainer

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

// The losses of all passes one after the other; each rank fills in those of its own. On a base that
// the ranks keep together they pass in rounds, of one each, and leave behind one: where the last is
// short, the other ranks pass what the last of it does, for nothing.
void visit_dealt(model::CausalLm& model, const data::Examples& examples,
                 const EvaluationPasses& passes, Progress& progress, const Visit& visit) {
  distributed::Group& group = *passes.group;
  const auto all = dealt(examples, passes.tokens_per_pass);
  const bool in_rounds = model.placement.on_ranks();
  const auto rank = static_cast<size_t>(group.rank()), size = static_cast<size_t>(group.size());
  std::vector<float> losses(1, 0.0F);  // the first: whether one of the ranks wants to stop
  std::optional<Stopped> stopped;
  for (size_t p = 0; p < all.size(); ++p) {
    const data::MicroBatch batch = data::make_micro_batch(examples, all[p]);
    const std::vector<int32_t> targets = targets_of(batch, passes);
    if (p % size == rank && (in_rounds || !stopped)) {
      const auto own = losses_of(model, batch, targets, passes.adapters_enabled);
      losses.insert(losses.end(), own.begin(), own.end());
    } else {
      losses.resize(losses.size() + targets.size() -
                    static_cast<size_t>(std::ranges::count(targets, data::kIgnore)));
    }
    try {
      progress.advance(static_cast<int64_t>(all[p].size()));
    } catch (const Stopped& here) {
      stopped = here;
      losses.front() = 1;
    }
    const bool ends_round = p % size + 1 == size || p + 1 == all.size();
    if (!in_rounds || !ends_round) continue;
    if (p % size < rank) losses_of(model, batch, targets, passes.adapters_enabled);
    if (group.any(stopped.has_value())) break;
  }
  group.sum(at::from_blob(losses.data(), {static_cast<int64_t>(losses.size())}, at::kFloat));
  if (losses.front() > 0) throw stopped.value_or(Stopped{passes.name, 0, 0, ""});
  auto next = losses.begin() + 1;
  for (const std::vector<int64_t>& indices : all) {
    const data::MicroBatch batch = data::make_micro_batch(examples, indices);
    const std::vector<int32_t> targets = targets_of(batch, passes);
    const auto end = next + (std::ssize(targets) - std::ranges::count(targets, data::kIgnore));
    visit(batch, targets, {next, end});
    next = end;
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

#include "trainer/evaluation_passes.h"

#include <ATen/core/grad_mode.h>

#include "base/progress.h"
#include "trainer/forward_input.h"
#include "trainer/loss.h"

namespace qlora::trainer {

void for_each_pass(
    model::CausalLm& model, const data::Examples& examples, const EvaluationPasses& passes,
    const std::function<void(const data::MicroBatch&, const std::vector<int32_t>& targets,
                             const std::vector<float>& losses)>& visit) {
  at::NoGradGuard no_grad;
  std::vector<int64_t> indices;
  int64_t tokens = 0;
  Progress progress(passes.name, static_cast<int64_t>(examples.size()), "rows");
  progress.leave_if_stop_wanted();
  const auto flush = [&] {
    if (indices.empty()) return;
    const data::MicroBatch batch = data::make_micro_batch(examples, indices);
    model::ForwardInput input = forward_input(batch);
    input.adapters_enabled = passes.adapters_enabled;
    const std::vector<int32_t> targets = passes.targets ? passes.targets(batch) : batch.targets;
    visit(batch, targets,
          token_losses(model.hidden(input), targets, model.head, model.context(input),
                       model.architecture().logit_softcap));
    progress.advance(static_cast<int64_t>(indices.size()));
    indices.clear();
    tokens = 0;
  };
  for (size_t i = 0; i < examples.size();) {
    const size_t end = i + (examples[i].side == data::Side::kChosen ? 2 : 1);
    int64_t more = 0;
    for (size_t e = i; e < end; ++e) more += examples.at(e).length();
    if (tokens + more > passes.tokens_per_pass) flush();
    for (; i < end; ++i) indices.push_back(static_cast<int64_t>(i));
    tokens += more;
  }
  flush();
}

}  // namespace qlora::trainer

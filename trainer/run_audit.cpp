#include "trainer/run_audit.h"

#include "base/error.h"
#include "base/log.h"

namespace qlora::trainer {

RunAudit::RunAudit(const TrainJob& job)
    : job_(job),
      gradients_(job.adapters, job.optimizer.num_steps()),
      losses_(job.model.architecture().vocab_size, job.state.losses) {}

void RunAudit::look(double loss, double learning_rate) {
  if (!job_.audit) return;
  const int64_t step = job_.state.step + 1;
  if (losses_.has_diverged(loss))
    fail<DivergenceError>(
        "step {}: the training diverged: the loss is {:.4g} and was above {:.4g} in {} steps, "
        "after {:.4g} at first; it takes another run with a lower optim.lr (the rate is {:.3g} "
        "now) "
        "or a higher optim.warmup_ratio. train.audit=false trains on regardless",
        step, loss, losses_.bound(), LossAudit::kStepsInARow, losses_.first(), learning_rate);
  gradients_.look();
  const std::string missing = gradients_.is_over() ? gradients_.missing() : "";
  if (missing.empty()) return;
  fail<ConfigError>(
      "step {}: {} (the loss is {:.4g} and was {:.4g} at first). Check lora.targets, "
      "lora.modules_to_save, the rows, and optim.lr if the loss has risen; where no gradient is to "
      "be expected (rows of two tokens have none for q_proj and k_proj), train.audit=false trains "
      "on",
      step, missing, loss, losses_.first());
}

void RunAudit::count_update(double learning_rate) { gradients_.count_update(learning_rate); }

void RunAudit::at_the_end() const {
  constexpr int64_t kUpdatesForAWarning = 5;
  if (!job_.audit || gradients_.is_over() || gradients_.updates() < kUpdatesForAWarning) return;
  if (const std::string missing = gradients_.missing(); !missing.empty())
    log::warning("{}; check lora.targets, lora.modules_to_save and the rows", missing);
}

}  // namespace qlora::trainer

// What the loop looks at in its steps to stop a run that trains nothing or trains it to pieces.
#pragma once

#include "trainer/gradient_audit.h"
#include "trainer/loss_audit.h"
#include "trainer/train_loop.h"

namespace qlora::trainer {

// Does nothing where job.audit is false.
class RunAudit {
 public:
  explicit RunAudit(const TrainJob& job);

  // A window's loss and its gradients, all finite, before the optimizer has seen them. Throws
  // DivergenceError if the loss has left for good, and ConfigError if tensors got no gradient in
  // GradientAudit::kAuditedUpdates; both name the key that lets the run go on.
  void look(double loss, double learning_rate);
  void count_update(double learning_rate);
  // Of a run that ended before enough was seen: a warning instead.
  void at_the_end() const;

 private:
  const TrainJob& job_;
  GradientAudit gradients_;
  LossAudit losses_;
};

}  // namespace qlora::trainer

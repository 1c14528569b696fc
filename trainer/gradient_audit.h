// Whether the gradients of a run reach everything that it trains. A zero in one step proves
// nothing: A has no gradient before B has moved, what lies before a block of zeros has none before
// that block has moved, and rows of two tokens leave attention one key and give q and k none at
// all. What is still without a gradient after kAuditedUpdates is named.
#pragma once

#include <string>
#include <vector>

#include "lora/attach.h"

namespace qlora::trainer {

class GradientAudit {
 public:
  static constexpr int64_t kAuditedUpdates = 20;  // with a learning rate above zero

  // Watches the low-rank factors and the weights that are trained whole. Biases and single tokens
  // are left out: keys have no use for a bias, and a token may be in no row. `updates_before`: of
  // the run so far. A run that is resumed within its first kAuditedUpdates is watched for that
  // long again, a later one not at all.
  GradientAudit(const lora::AdapterSet& adapters, int64_t updates_before);

  // The gradients of a whole window, finite, before the update. Shares no memory with them.
  void look();
  void count_update(double learning_rate);

  // Enough has been seen to say that what is missing gets no gradient.
  bool is_over() const { return updates_ >= kAuditedUpdates; }
  int64_t updates() const { return updates_; }
  // "5 trained tensors got no gradient in 20 updates: NAME, NAME, NAME, ...; they are what they
  // were", or empty if none is missing.
  std::string missing() const;

 private:
  std::vector<lora::AdapterTensor> unseen_;
  int64_t updates_ = 0;
};

}  // namespace qlora::trainer

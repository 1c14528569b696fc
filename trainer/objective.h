// What a step minimises: the loss of a window's micro-batches, and what is reported of it besides.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "data/loader.h"
#include "model/causal_lm.h"
#include "trainer/late_number.h"
#include "trainer/preference_loss.h"

namespace qlora::trainer {

// Of one micro-batch.
struct MicroBatchLoss {
  LateNumber value;  // its part of the step's loss
  // A scalar to call backward() on: its gradient is that of value · loss scale. Of preferences it
  // has another value, the sum of the tokens' losses by what each weighs in that gradient.
  at::Tensor scaled_loss;
  // What the objective's metrics are made of: as many numbers for each micro-batch, which are
  // added.
  std::vector<double> facts = {};
};

class Objective {
 public:
  virtual ~Objective() = default;
  // Before the micro-batches of each window, which have its divisors in common. `loss_scale`:
  // loss_scale.h.
  virtual void begin(const data::StepWindow& window, double loss_scale) = 0;
  virtual MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                              const data::MicroBatch& batch) = 0;
  // How many facts a micro-batch has.
  virtual int64_t num_facts() const { return 0; }
  // Of a window whose micro-batches' facts are added up in `facts`; nothing for demonstrations.
  virtual std::optional<PreferenceMetrics> metrics(const std::vector<double>&) const {
    return std::nullopt;
  }
};

// Cross entropy of the supervised tokens, divided by their number in the window.
std::unique_ptr<Objective> cross_entropy_objective();

}  // namespace qlora::trainer

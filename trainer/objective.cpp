#include "trainer/objective.h"

#include "trainer/loss.h"

namespace qlora::trainer {
namespace {

class CrossEntropyObjective : public Objective {
 public:
  void begin(const data::StepWindow& window, double loss_scale) override {
    loss_scale_ = loss_scale;
    scale_ =
        window.num_supervised > 0 ? loss_scale / static_cast<double>(window.num_supervised) : 0.0;
  }

  MicroBatchLoss loss(model::CausalLm& model, const model::ForwardInput& input,
                      const data::MicroBatch& batch) override {
    const at::Tensor part =
        fused_cross_entropy(model.hidden(input), batch.targets, model.head, scale_,
                            model.context(input), model.architecture().logit_softcap);
    LateNumber value(part, loss_scale_);
    if (part.is_cpu()) value.get();  // nothing to wait for
    return {value, part};
  }

 private:
  double loss_scale_ = 1, scale_ = 0;
};

}  // namespace

std::unique_ptr<Objective> cross_entropy_objective() {
  return std::make_unique<CrossEntropyObjective>();
}

}  // namespace qlora::trainer

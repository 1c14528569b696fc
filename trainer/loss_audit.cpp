#include "trainer/loss_audit.h"

#include <algorithm>
#include <cmath>

namespace qlora::trainer {

LossAudit::LossAudit(int64_t vocab_size) : guessing_(std::log(static_cast<double>(vocab_size))) {}

double LossAudit::bound() const { return std::max(kRise * first(), guessing_); }

bool LossAudit::has_diverged(double loss) {
  if (!first_) first_ = loss;
  above_ = loss > bound() ? above_ + 1 : 0;
  return above_ >= kStepsInARow;
}

}  // namespace qlora::trainer

#include "trainer/loss_audit.h"

#include <algorithm>
#include <cmath>

namespace qlora::trainer {

LossAudit::LossAudit(int64_t vocab_size, SeenLosses& seen)
    : guessing_(std::log(static_cast<double>(vocab_size))), seen_(seen) {}

double LossAudit::bound() const { return std::max(kRise * first(), guessing_); }

bool LossAudit::has_diverged(double loss) {
  if (!seen_.first) seen_.first = loss;
  seen_.above = loss > bound() ? seen_.above + 1 : 0;
  return seen_.above >= kStepsInARow;
}

}  // namespace qlora::trainer

// Whether the loss of a run has left for good: finite, but worse than before training and than
// guessing.
#pragma once

#include <cstdint>
#include <optional>

namespace qlora::trainer {

class LossAudit {
 public:
  static constexpr int64_t kStepsInARow = 3;
  static constexpr double kRise = 2;  // times the first loss

  // Guessing evenly among `vocab_size` tokens has a loss of its logarithm.
  explicit LossAudit(int64_t vocab_size);

  // Losses in nats a token, step by step. True once kStepsInARow of them lay above bound(). A
  // resumed run begins anew: its first loss is what the later ones are compared with.
  bool has_diverged(double loss);

  double first() const { return first_.value_or(0); }
  // What no loss of a healthy run stays above: kRise * first(), or that of guessing if it is more.
  double bound() const;

 private:
  double guessing_;
  std::optional<double> first_;
  int64_t above_ = 0;  // steps in a row
};

}  // namespace qlora::trainer

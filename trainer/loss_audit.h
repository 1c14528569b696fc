// Whether the loss of a run has left for good: finite, but worse than before training and than
// guessing.
#pragma once

#include <cstdint>
#include <optional>

namespace qlora::trainer {

// What the audit remembers from step to step; a checkpoint keeps it (train_state.h), so that a
// resumed run is stopped where the unbroken one is.
struct SeenLosses {
  std::optional<double> first;
  int64_t above = 0;  // steps in a row above LossAudit::bound()
  bool operator==(const SeenLosses&) const = default;
};

class LossAudit {
 public:
  static constexpr int64_t kStepsInARow = 3;
  static constexpr double kRise = 2;  // times the first loss

  // Guessing evenly among `vocab_size` tokens has a loss of its logarithm. `seen` outlives it.
  LossAudit(int64_t vocab_size, SeenLosses& seen);

  // Losses in nats a token, step by step. True once kStepsInARow of them lay above bound(). With
  // nothing seen, as of a checkpoint of an older version, the first of them is what the later ones
  // are compared with.
  bool has_diverged(double loss);

  double first() const { return seen_.first.value_or(0); }
  // What no loss of a healthy run stays above: kRise * first(), or that of guessing if it is more.
  double bound() const;

 private:
  double guessing_;
  SeenLosses& seen_;
};

}  // namespace qlora::trainer

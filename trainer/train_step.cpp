#include "trainer/train_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/progress.h"
#include "base/seed.h"
#include "trainer/forward_input.h"

namespace qlora::trainer {
namespace {

std::string name_of_step(const TrainJob& job) {
  if (job.total_steps == 0) return "measuring a step";
  return fmt::format("step {} of {}", job.state.step + 1, job.total_steps);
}

// Which micro-batches of a window this rank computes.
struct Block {
  size_t begin = 0, end = 0;
};

Block block_of(const TrainJob& job, size_t micro_batches) {
  if (job.micro_batches_a_rank == 0) return {0, micro_batches};
  const auto count = static_cast<size_t>(job.micro_batches_a_rank);
  const size_t begin = static_cast<size_t>(job.group->rank()) * count;
  return {std::min(begin, micro_batches), std::min(begin + count, micro_batches)};
}

// What the ranks tell each other of a window before they add its gradients: [micro-batches, 1 +
// facts] numbers, the loss first, and whether one of them wants to stop.
class Tally {
 public:
  Tally(size_t micro_batches, int64_t facts)
      : row_(1 + facts),
        numbers_(at::zeros({static_cast<int64_t>(micro_batches) * row_ + 1}, at::kDouble)) {}

  void set(size_t micro_batch, MicroBatchLoss& loss) {
    double* row = row_of(micro_batch);
    row[0] = loss.value.get();
    std::copy(loss.facts.begin(), loss.facts.end(), row + 1);
  }
  double loss(size_t micro_batch) const { return row_of(micro_batch)[0]; }
  // Added from the first micro-batch to the last, whoever computed them.
  std::vector<double> sums(size_t micro_batches) const {
    std::vector<double> sums(static_cast<size_t>(row_), 0.0);
    for (size_t i = 0; i < micro_batches; ++i)
      for (size_t k = 0; k < sums.size(); ++k) sums[k] += row_of(i)[k];
    return sums;
  }
  void want_to_stop() { *stop() = 1; }
  bool is_to_stop() const { return *stop() > 0; }
  void exchange(distributed::Group& group) { group.sum(numbers_); }

 private:
  double* row_of(size_t micro_batch) const {
    return numbers_.mutable_data_ptr<double>() + static_cast<int64_t>(micro_batch) * row_;
  }
  double* stop() const { return numbers_.mutable_data_ptr<double>() + numbers_.numel() - 1; }

  int64_t row_;
  at::Tensor numbers_;
};

// The forward pass of a micro-batch of the window.
MicroBatchLoss loss_of(TrainJob& job, const data::StepWindow& window, size_t i) {
  const data::MicroBatch& batch = window.micro_batches[i];
  model::ForwardInput input = forward_input(batch);
  input.training = true;
  input.recompute_layers = job.state.choices.recompute_layers;
  input.dropout_key = random_key(random_key(job.seed, static_cast<uint64_t>(job.state.step)), i);
  return job.objective->loss(job.model, input, batch);
}

// Losses and gradients of this rank's micro-batches. Losses that are known at once are looked at on
// the way, and the first that is not finite ends it. Those of a GPU are read behind the last
// backward pass: to wait for each would leave the GPU idle until the host has queued the next pass.
void compute(TrainJob& job, const data::StepWindow& window, Tally& tally) {
  const Block block = block_of(job, window.micro_batches.size());
  Progress progress(name_of_step(job), static_cast<int64_t>(block.end - block.begin),
                    "micro-batches");
  GradientSum& sum = job.gradient_sum;
  std::vector<std::pair<size_t, MicroBatchLoss>> late;
  sum.begin(job.adapters.gradients(), static_cast<int64_t>(block.end - block.begin));
  // A rank with one micro-batch, or none, comes to no place between two.
  if (job.group->size() > 1) progress.leave_if_stop_wanted();
  for (size_t i = block.begin; i < block.end; ++i) {
    MicroBatchLoss part = loss_of(job, window, i);
    const bool is_late = !part.value.is_known();
    if (!is_late) tally.set(i, part);
    if (!is_late && !std::isfinite(part.value.get())) return;
    sum.begin_micro_batch();
    part.scaled_loss.backward();
    part.scaled_loss.reset();  // and the pass behind it
    if (is_late) late.emplace_back(i, std::move(part));
    progress.advance();
  }
  sum.finish();
  for (auto& [i, part] : late) tally.set(i, part);
}

// The same on a base that the ranks keep together (model.device_map: ranks). A pass of one is a
// pass of all, since each gives its parts of the blocks: so all make as many as the first, which
// has most micro-batches, and leave the window at the same place. A rank that has none left passes
// one of another's, of which it keeps nothing.
class PassesTogether {
 public:
  PassesTogether(TrainJob& job, const data::StepWindow& window, Tally& tally)
      : job_(job),
        window_(window),
        tally_(tally),
        block_(block_of(job, window.micro_batches.size())),
        num_passes_(
            std::min(static_cast<size_t>(job.micro_batches_a_rank), window.micro_batches.size())),
        progress_(name_of_step(job), static_cast<int64_t>(num_passes_), "micro-batches") {}

  // Throws Stopped on ranks that wish to stop, once all have left.
  void compute() {
    const at::Tensor gradients = job_.adapters.gradients();
    GradientSum& sum = job_.gradient_sum;
    const size_t num_own = block_.end - block_.begin;
    sum.begin(gradients, static_cast<int64_t>(num_own));
    bool goes_on = true;
    note_stop([this] { progress_.leave_if_stop_wanted(); });
    for (size_t pass = 0; pass < num_own && goes_on; ++pass)
      goes_on = take(block_.begin + pass, &sum);
    sum.finish();
    if (goes_on && num_own < num_passes_) {
      const at::Tensor own = gradients.clone();
      for (size_t pass = num_own; pass < num_passes_ && goes_on; ++pass)
        goes_on = take(pass, nullptr);
      gradients.copy_(own);
    }
    if (stopped_) throw *stopped_;
  }

 private:
  // Whether the window goes on behind this micro-batch; `sum`: of one of its own.
  bool take(size_t micro_batch, GradientSum* sum) {
    MicroBatchLoss part = loss_of(job_, window_, micro_batch);
    if (sum != nullptr) tally_.set(micro_batch, part);
    if (job_.group->any(stopped_.has_value() || !std::isfinite(part.value.get()))) return false;
    if (sum != nullptr) sum->begin_micro_batch();
    part.scaled_loss.backward();
    note_stop([this] { progress_.advance(); });
    return true;
  }
  template <typename Step>
  void note_stop(const Step& step) {
    try {
      step();
    } catch (const Stopped& here) {
      stopped_ = here;
    }
  }

  TrainJob& job_;
  const data::StepWindow& window_;
  Tally& tally_;
  Block block_;
  size_t num_passes_;
  Progress progress_;
  std::optional<Stopped> stopped_;
};

void refuse_divergence(const TrainJob& job, const data::StepWindow& window, const Tally& tally) {
  for (size_t i = 0; i < window.micro_batches.size(); ++i) {
    if (std::isfinite(tally.loss(i))) continue;
    const data::MicroBatch& batch = window.micro_batches[i];
    fail<DivergenceError>(
        "step {}: the loss is {} (micro-batch {}, first row {}); lower optim.lr or check that row",
        job.state.step + 1, tally.loss(i), i, batch.examples.empty() ? -1 : batch.examples.front());
  }
}

}  // namespace

WindowLoss accumulate_gradients(TrainJob& job, const data::StepWindow& window) {
  job.objective->begin(window, job.state.loss_scale.value);
  const size_t micro_batches = window.micro_batches.size();
  Tally tally(micro_batches, job.objective->num_facts());
  std::optional<Stopped> stopped;
  try {
    if (job.model.placement.on_ranks())
      PassesTogether(job, window, tally).compute();
    else
      compute(job, window, tally);
  } catch (const Stopped& here) {
    if (job.group->size() == 1) throw;
    stopped = here;
    tally.want_to_stop();
  }
  tally.exchange(*job.group);
  if (tally.is_to_stop()) throw stopped.value_or(Stopped());
  refuse_divergence(job, window, tally);
  job.group->sum(job.adapters.gradients());
  std::vector<double> facts = tally.sums(micro_batches);
  const double loss = facts.front();
  facts.erase(facts.begin());
  return {loss, job.objective->metrics(facts)};
}

}  // namespace qlora::trainer

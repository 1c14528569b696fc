#include "trainer/fetch_plan.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/device.h"
#include "base/stopwatch.h"
#include "io/read_rate.h"
#include "trainer/loss.h"
#include "trainer/planned_base.h"

namespace qlora::trainer {
namespace {

// Of the blocks elsewhere, those that have to be fetched in a pass: two are still near.
double fetched_share(int64_t blocks) {
  return blocks <= 2 ? 0 : static_cast<double>(blocks - 2) / static_cast<double>(blocks);
}

double head_passes(const PlannedRun& run) {
  const int64_t element = run.model.upcast == "all"
                              ? static_cast<int64_t>(sizeof(float))
                              : static_cast<int64_t>(c10::elementSize(run.compute));
  const int64_t rows = loss_chunk_rows(element);
  const int64_t tokens = run.architecture.has_encoder() ? (run.tokens() + 1) / 2 : run.tokens();
  const int64_t chunks = (tokens + rows - 1) / rows;
  return static_cast<double>(chunks) * (run.pairs ? 3 : 2);
}

// Bytes a second of a copy from host memory to the device.
double copy_rate(c10::Device device) {
  constexpr int64_t kBytes = 64 << 20;
  constexpr int kCopies = 3;
  const at::NoGradGuard no_grad;
  const auto bytes = at::TensorOptions().dtype(at::kByte);
  const at::Tensor from = at::zeros({kBytes}, bytes.pinned_memory(device.is_cuda()));
  at::Tensor to = at::zeros({kBytes}, bytes.device(device));
  double least = std::numeric_limits<double>::max();
  for (int i = 0; i < kCopies; ++i) {
    synchronize(device);
    const Stopwatch watch;
    to.copy_(from, /*non_blocking=*/true);
    synchronize(device);
    least = std::min(least, watch.seconds());
  }
  return static_cast<double>(kBytes) / std::max(least, std::numeric_limits<double>::min());
}

}  // namespace

std::string FetchPlan::to_text() const {
  if (!any()) return "";
  constexpr double kGigabyte = 1e9;
  std::string rates;
  if (disk_bytes > 0)
    rates = fmt::format("disk {:.2f} GB/s{}", disk_rate / kGigabyte,
                        disk_rate_is_assumed ? ", assumed" : "");
  if (host_rate > 0)
    rates +=
        fmt::format("{}host memory {:.1f} GB/s", rates.empty() ? "" : ", ", host_rate / kGigabyte);
  if (rank_bytes > 0)
    rates += fmt::format("{}other ranks {:.2f} GB/s{}", rates.empty() ? "" : ", ",
                         rank_rate / kGigabyte, rank_rate_is_assumed ? ", assumed" : "");
  return fmt::format("{:.2f} s for {:.2f} GB a step ({})", seconds,
                     (host_bytes + disk_bytes + rank_bytes) / kGigabyte, rates);
}

FetchPlan fetched_bytes(const PlannedRun& run, int64_t gradient_accumulation_steps) {
  constexpr double kPasses = 2;
  if (!run.placement.elsewhere()) return {};
  const Elsewhere elsewhere = planned_base(run).elsewhere;
  const auto micro_batches = static_cast<double>(gradient_accumulation_steps);
  const double blocks = micro_batches * kPasses * fetched_share(elsewhere.fetched_blocks);
  const double heads = micro_batches * head_passes(run);
  FetchPlan plan;
  plan.host_bytes = blocks * static_cast<double>(elsewhere.fetched_host) +
                    heads * static_cast<double>(elsewhere.head_host);
  plan.disk_bytes = blocks * static_cast<double>(elsewhere.fetched_disk) +
                    heads * static_cast<double>(elsewhere.head_disk);
  // Its own part a rank has.
  const auto ranks = static_cast<double>(run.ranks);
  plan.rank_bytes = blocks * static_cast<double>(elsewhere.fetched_shared) * (ranks - 1) / ranks;
  return plan;
}

FetchPlan plan_gathers(const PlannedRun& run, int64_t micro_batches) {
  FetchPlan plan;
  plan.rank_bytes = fetched_bytes(run, micro_batches).rank_bytes;
  if (plan.rank_bytes == 0) return {};
  plan.rank_rate_is_assumed = run.rank_rate == 0;
  plan.rank_rate = plan.rank_rate_is_assumed ? kAssumedRankRate : run.rank_rate;
  plan.seconds = plan.rank_bytes / plan.rank_rate;
  return plan;
}

FetchPlan plan_fetch(const PlannedRun& run, int64_t gradient_accumulation_steps,
                     const std::string& file, c10::Device device) {
  FetchPlan plan = fetched_bytes(run, gradient_accumulation_steps);
  if (plan.host_bytes > 0 || (plan.disk_bytes > 0 && device.is_cuda())) {
    plan.host_rate = copy_rate(device);
    plan.seconds += (plan.host_bytes + (device.is_cuda() ? plan.disk_bytes : 0)) / plan.host_rate;
  }
  if (plan.disk_bytes > 0) {
    plan.disk_rate_is_assumed = file.empty();
    plan.disk_rate = file.empty() ? kAssumedDiskRate : io::read_rate(file);
    plan.seconds += plan.disk_bytes / plan.disk_rate;
  }
  if (const FetchPlan gathers = plan_gathers(run, gradient_accumulation_steps); gathers.any()) {
    plan.rank_rate = gathers.rank_rate;
    plan.rank_rate_is_assumed = gathers.rank_rate_is_assumed;
    plan.seconds += gathers.seconds;
  }
  return plan;
}

}  // namespace qlora::trainer

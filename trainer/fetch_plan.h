// How long a step fetches frozen weights that lie elsewhere (model/placement.h):
//
//   seconds = host bytes / host's rate + bytes on disk / disk's rate + other ranks' bytes / their
//             rate
//
// Blocks pass twice in a micro-batch, forward and backward (a recomputed block is computed again
// while it is near for its backward pass), except for the two that are near at the turns. The head
// passes twice for each chunk of rows of the loss, with pairs of answers three times. Rows of the
// embedding are too few to count. Fetching goes on beside the products: of the two, a step takes
// the longer one.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

#include "trainer/memory_plan.h"

namespace qlora::trainer {

// Bytes a second that a disk is taken to give where there is no file to read: a slow NVMe drive.
constexpr double kAssumedDiskRate = 1e9;
// Bytes a second that are taken to reach a rank where nobody says how many: PCIe 4 between GPUs
// that do not reach each other's memory.
constexpr double kAssumedRankRate = 1e10;

struct FetchPlan {
  double host_bytes = 0, disk_bytes = 0, rank_bytes = 0;  // a step; of other ranks' parts
  double host_rate = 0, disk_rate = 0, rank_rate = 0;  // bytes a second; 0: of what is not fetched
  bool disk_rate_is_assumed = false, rank_rate_is_assumed = false;
  double seconds = 0;  // a step

  bool any() const { return host_bytes > 0 || disk_bytes > 0 || rank_bytes > 0; }
  // "4.1 s for 12.30 GB a step (disk 3.00 GB/s)"; empty if nothing is fetched.
  std::string to_text() const;
};

// Of other ranks' parts alone, by run.rank_rate or an assumed rate; the number of micro-batches is
// that of a rank here and below.
FetchPlan plan_gathers(const PlannedRun& run, int64_t micro_batches);

// The bytes alone.
FetchPlan fetched_bytes(const PlannedRun& run, int64_t gradient_accumulation_steps);

// With rates measured in a few tenths of a second: of copies of host memory to `device`, and of the
// disk on which `file` lies, where the run's own file for weights is taken to lie too; empty: none
// is there. On a GPU what comes from a disk is copied from the host as well. IoError of
// io::read_rate().
FetchPlan plan_fetch(const PlannedRun& run, int64_t gradient_accumulation_steps,
                     const std::string& file, c10::Device device);

}  // namespace qlora::trainer

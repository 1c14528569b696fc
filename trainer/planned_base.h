// What a run's frozen weights take and where they lie, told from the shape of its model: those of
// the linear layers, and the matrices of embedding and head.
#pragma once

#include <cstdint>

#include "trainer/memory_plan.h"
#include "trainer/product_plan.h"

namespace qlora::trainer {

// Bytes that do not lie on the device (model/placement.h), or in parts with all ranks.
struct Elsewhere {
  int64_t host = 0, disk = 0;
  int64_t shards = 0;  // of this rank's parts, which are on its device
  // Of them, those of blocks that are fetched to the device for use, two blocks at a time; of
  // shared ones the whole of all.
  int64_t fetched_host = 0, fetched_disk = 0, fetched_shared = 0;
  int64_t fetched_blocks = 0, largest_block = 0;  // how many, and the most bytes of one
  // Of the head, which is fetched panel by panel for each chunk of rows; 0: it is on the device.
  int64_t head_host = 0, head_disk = 0;
};

struct PlannedBase {
  int64_t weights = 0, scales = 0;  // bytes of the linear layers on the device
  int64_t biases = 0, norms = 0;    // bytes
  int64_t outer = 0;                // of embedding, learned positions and head on the device
  int64_t largest = 0;              // numbers of the largest linear layer
  // The most inputs and outputs, together, of a layer that quant::HostWeight multiplies; 0: none.
  int64_t host_product_width = 0;
  Elsewhere elsewhere;
  ProductNeeds products;
};

PlannedBase planned_base(const PlannedRun& run);

// Of what is not quantized, by model.dtype; `auto` counts as bfloat16.
at::ScalarType planned_dtype(const PlannedRun& run);
// Bytes of a number of embedding and head, by model.upcast.
int64_t outer_element_bytes(const PlannedRun& run);

}  // namespace qlora::trainer

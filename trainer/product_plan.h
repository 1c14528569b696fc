// What a run's products with its frozen weights need beside what goes in and comes out, by the
// routes that its passes will take (quant/products/product_routes.h).
#pragma once

#include <cstdint>

#include "model/block_spec.h"
#include "quant/products/product_routes.h"
#include "trainer/memory_plan.h"

namespace qlora::trainer {

// Facts of a training pass's products, of which the layers are to be filled in: those that share an
// input. Each counts as one with an adapter, of an odd rank if a module of the run has such, and
// with a magnitude in a run with DoRA; what is trained whole is not looked for.
quant::ProductFacts planned_products(const PlannedRun& run);
quant::LayerFacts planned_layer(const PlannedRun& run, const model::LinearSpec& linear,
                                const quant::WeightTraits& weight);

struct ProductNeeds {
  int64_t decoded_bytes = 0;  // of the largest buffer to which rows are decoded
  bool sums_onto = true;      // what ends a branch is added to the residual stream as it is made
  // Of any product, as the route says.
  bool in_int8 = false, in_int32 = false, in_library = false;

  void add(const quant::ProductFacts& facts, bool ends_branch);
};

}  // namespace qlora::trainer

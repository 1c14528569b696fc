// Weights of a given shape without files, made up tensor by tensor and loaded as real ones are: for
// measurements whose result does not depend on the values.
#pragma once

#include <functional>
#include <memory>

#include "model/weight_source.h"

namespace qlora::model {

// What the file of a packed model would hold for a linear layer; null: floating point.
using PackedMaker = std::function<std::unique_ptr<quant::FrozenWeight>(
    const std::string& module, int64_t out, int64_t in, at::Device device)>;

std::unique_ptr<WeightSource> made_weights(const Architecture& architecture,
                                           const PackedMaker& packed = {});

}  // namespace qlora::model

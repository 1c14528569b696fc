// What files say once for a whole model, and the description layer by layer.
#pragma once

#include "model/architecture.h"

namespace qlora::model {

// Of the first layer that has experts; null where none has.
const ExpertsSpec* first_experts(const Architecture& architecture);
// Of the first MLP; of an expert where all layers have experts.
int64_t inner_size(const Architecture& architecture);
// 0 where no layer has a window.
int64_t smallest_window(const Architecture& architecture);

}  // namespace qlora::model

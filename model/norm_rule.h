// How a norm is computed, beside its weights.
#pragma once

#include <cstdint>

namespace qlora::model {

// RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba, Kiros, Hinton 2016).
enum class NormKind : uint8_t { kNone, kRms, kLayer };

struct NormRule {
  NormKind kind = NormKind::kRms;
  double eps = 1e-6;
  double offset = 0;  // added to the weight, which is as the file has it (Gemma: 1)
};

}  // namespace qlora::model

// The 256-entry dynamic maps of 8-bit blockwise quantization (Dettmers et al. 2022, 8-bit
// Optimizers via Block-wise Quantization, section 2.2): seven decades 10^-6 .. 1; decade i holds
// 2^i (signed) or 2^(i+1) (unsigned) values evenly spaced in [0.1, 1], so that precision is spent
// near 1 and range near 0. Signed adds the negatives; both add 0 and 1.
//
// Equal bit for bit to bitsandbytes' create_dynamic_map. Ascending; entries lie in [-0.993, 1] or
// [0, 1].
#pragma once

#include <array>

namespace qlora::quant {

using DynamicMap = std::array<float, 256>;

// For signed values: nested absmax of double quantization, first moments.
const DynamicMap& signed_dynamic_map();
// For values >= 0: second moments.
const DynamicMap& unsigned_dynamic_map();

}  // namespace qlora::quant

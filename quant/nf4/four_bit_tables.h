// The 4-bit codes: NF4 (Dettmers et al. 2023, QLoRA, appendix E) and FP4 (sign, 2 exponent bits, 1
// mantissa bit, scaled so that the largest is 1). The only copy of these values in the project,
// shared by CPU and CUDA.
//
// Encoding picks the entry whose interval holds x = w / absmax, a tie going to the lower value. The
// interval bounds are the midpoints of neighbouring entries, and here bitsandbytes' two backends
// differ in the last bit: its CPU path computes (a + b) / 2 in fp32, its CUDA path holds decimal
// literals. Each of our kernels follows its own.
#pragma once

namespace qlora::quant {

enum class FourBitCode { kNf4, kFp4 };

constexpr int kNumFourBitCodes = 16;

// Value of each stored code. FP4's code 8 is a zero as well: +0 as in the tables of stored
// checkpoints.
constexpr float kNf4Table[kNumFourBitCodes] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
constexpr float kFp4Table[kNumFourBitCodes] = {
    0.0f, 0.0625f / 12.0f,  8.0f / 12.0f,  1.0f,  4.0f / 12.0f,  0.5f,  2.0f / 12.0f,  0.25f,
    0.0f, -0.0625f / 12.0f, -8.0f / 12.0f, -1.0f, -4.0f / 12.0f, -0.5f, -2.0f / 12.0f, -0.25f,
};

// FP4's codes from the least value to the greatest. A tiny positive x takes code 8, a tiny negative
// one code 0.
constexpr unsigned char kFp4Ascending[kNumFourBitCodes] = {11, 10, 13, 12, 15, 14, 9, 0,
                                                           8,  1,  6,  7,  4,  5,  2, 3};

// Bounds of the CUDA path: x takes the number of bounds below it.
constexpr float kNf4CudaBounds[kNumFourBitCodes - 1] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f,
};
// For |x|: the number of bounds below it indexes kFp4CudaMagnitudes, and the sign adds 8.
constexpr float kFp4CudaBounds[7] = {0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f,
                                     0.4166667f,  0.583333f,  0.8333333f};
constexpr unsigned char kFp4CudaMagnitudes[8] = {0, 1, 6, 7, 4, 5, 2, 3};

}  // namespace qlora::quant

// The 4-bit and 8-bit formats as plain loops over single elements: slow, and the definition that
// every kernel is held to.
#pragma once

#include <cstdint>
#include <vector>

#include "quant/nf4/four_bit_tables.h"

namespace qlora::test {

struct FourBitReference {
  std::vector<uint8_t> packed;
  std::vector<float> absmax;
};

// As the CPU path defines it.
FourBitReference quantize_four_bit_reference(const std::vector<float>& weight,
                                             quant::FourBitCode code, int64_t block_size);
// As the CUDA path defines it, but with an exact reciprocal.
FourBitReference quantize_four_bit_cuda_reference(const std::vector<float>& weight,
                                                  quant::FourBitCode code, int64_t block_size);
// fp32 products; rounding to 16 bits is the caller's.
std::vector<float> dequantize_four_bit_reference(const std::vector<uint8_t>& packed,
                                                 const std::vector<float>& absmax,
                                                 quant::FourBitCode code, int64_t block_size,
                                                 int64_t count);

struct Blockwise8Reference {
  std::vector<uint8_t> codes;
  std::vector<float> absmax;
};

// As the CPU path defines it: 65,536 bins.
Blockwise8Reference quantize_blockwise8_reference(const std::vector<float>& values,
                                                  const float* map, int64_t block_size);
// As the CUDA path defines it: nearest entry, a tie to the even code.
Blockwise8Reference quantize_blockwise8_cuda_reference(const std::vector<float>& values,
                                                       const float* map, int64_t block_size);

}  // namespace qlora::test

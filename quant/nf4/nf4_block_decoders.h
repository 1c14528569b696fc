// Dequantization of whole blocks on the CPU, the hot loop of every forward and backward pass: one
// decoder for each instruction set, all with the same bits.
//
// A block has one scale, so at most 16 different results: the table times the scale, rounded to the
// output type once. The decoders make these 16 and then only look nibbles up, with byte or word
// shuffles.
#pragma once

#include <cstdint>
#include <span>

#include "quant/nf4/nf4_kernels.h"

namespace qlora::quant::cpu {

struct BlockDecoder {
  const char* name;
  bool (*supported)();
  // Writes blocks [first, last), all of them whole, to `out`, where block `first` begins.
  void (*decode)(const FourBitDequantizeArguments& arguments, int64_t first, int64_t last,
                 void* out);
};

// Fastest first; the last one runs anywhere.
std::span<const BlockDecoder> block_decoders();
// The first whose instructions are in use.
const BlockDecoder& block_decoder();

inline float block_scale(const FourBitScales& scales, int64_t block) {
  if (scales.absmax != nullptr) return scales.absmax[block];
  return scales.map[scales.codes[block]] * scales.nested_absmax[block >> scales.nested_shift] +
         *scales.offset;
}

inline const float* code_table(FourBitCode code) {
  return code == FourBitCode::kNf4 ? kNf4Table : kFp4Table;
}

void decode_blocks_avx512(const FourBitDequantizeArguments& arguments, int64_t first, int64_t last,
                          void* out);
void decode_blocks_avx2(const FourBitDequantizeArguments& arguments, int64_t first, int64_t last,
                        void* out);
void decode_blocks_portable(const FourBitDequantizeArguments& arguments, int64_t first,
                            int64_t last, void* out);

}  // namespace qlora::quant::cpu

// Kernels of blockwise8.h on raw pointers. The CPU ones also come a block at a time, for optimizers
// that decode, update and encode a block while it is in cache.
#pragma once

#include <array>
#include <cstdint>

#include "quant/blockwise8/dynamic_map.h"
#include "quant/elements/element_type.h"

namespace qlora::quant {

// The code of each of 65,536 bins over [-1, 1]: bin i holds the code nearest to -1 + 2 i / 65535.
class CodeLookup {
 public:
  // map: 256 ascending entries.
  explicit CodeLookup(const float* map);
  // Those of the two dynamic maps, built once.
  static const CodeLookup& signed_map();
  static const CodeLookup& unsigned_map();
  uint8_t operator[](uint32_t bin) const { return codes_[bin]; }

 private:
  std::array<uint8_t, 65536> codes_;
};

struct Blockwise8QuantizeArguments {
  const void* input;
  ElementType type;
  const float* map;  // 256 entries
  int64_t count, block_size;
  uint8_t* codes;  // [count]
  float* absmax;   // [ceil(count / block_size)]; not finite where a block holds an infinity or NaN
};

struct Blockwise8DequantizeArguments {
  const uint8_t* codes;
  const float* map;  // 256 entries
  const float* absmax;
  int64_t count, block_size;
  void* out;
  ElementType type;
};

namespace cpu {
// One block of up to 4096 values -> codes; returns its absmax. A NaN takes the code of -1.
float encode_block8(const float* values, int64_t count, const CodeLookup& lookup, uint8_t* codes);
// One block of codes -> values.
void decode_block8(const uint8_t* codes, int64_t count, const float* map, float absmax,
                   float* values);

void quantize_blockwise8(const Blockwise8QuantizeArguments& arguments);
void dequantize_blockwise8(const Blockwise8DequantizeArguments& arguments);
}  // namespace cpu

namespace cuda {
void quantize_blockwise8(const Blockwise8QuantizeArguments& arguments, void* stream);
void dequantize_blockwise8(const Blockwise8DequantizeArguments& arguments, void* stream);
}  // namespace cuda

}  // namespace qlora::quant

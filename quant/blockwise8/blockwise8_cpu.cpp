#include <algorithm>
#include <cmath>

#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/blockwise8/blockwise8_kernels.h"
#include "quant/elements/element_conversion.h"

namespace qlora::quant {

CodeLookup::CodeLookup(const float* map) {
  int code = 0;
  for (int bin = 0; bin < 65536; ++bin) {
    const float value = -1.0f + (2.0f * static_cast<float>(bin)) / 65535.0f;
    while (code < 255 && 0.5f * (map[code] + map[code + 1]) < value) ++code;
    codes_[static_cast<size_t>(bin)] = static_cast<uint8_t>(code);
  }
}

const CodeLookup& CodeLookup::signed_map() {
  static const CodeLookup lookup(signed_dynamic_map().data());
  return lookup;
}

const CodeLookup& CodeLookup::unsigned_map() {
  static const CodeLookup lookup(unsigned_dynamic_map().data());
  return lookup;
}

namespace cpu {
namespace {

constexpr int64_t kChunk = 256;

// Bins of x * inverse. The fused multiply-add is part of the definition: rounding the product first
// moves bin borders.
template <typename T>
[[gnu::always_inline]] inline void bins(const T* values, int64_t count, float inverse,
                                        uint16_t* out) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = to_float(values[i]) * inverse;
    const float above = x >= -1.0f ? x : -1.0f;  // NaN too becomes -1
    const float clamped = above > 1.0f ? 1.0f : above;
    out[i] = static_cast<uint16_t>(
        static_cast<int32_t>(__builtin_fmaf((clamped + 1.0f) * 0.5f, 65535.0f, 0.5f)));
  }
}

template <typename T>
[[gnu::always_inline]] inline float encode(const T* values, int64_t count, const CodeLookup& lookup,
                                           uint8_t* codes) {
  const float absmax = absolute_maximum(values, count);
  if (absmax == 0.0f) {
    std::fill_n(codes, count, uint8_t{0});
    return absmax;
  }
  const float inverse = 1.0f / absmax;
  uint16_t chunk[kChunk];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    bins(values + begin, n, inverse, chunk);
    for (int64_t i = 0; i < n; ++i) codes[begin + i] = lookup[chunk[i]];
  }
  return absmax;
}

QLORA_VECTORIZED float encode_float32(const float* values, int64_t count, const CodeLookup& lookup,
                                      uint8_t* codes) {
  return encode(values, count, lookup, codes);
}
QLORA_VECTORIZED float encode_bfloat16(const BFloat16* values, int64_t count,
                                       const CodeLookup& lookup, uint8_t* codes) {
  return encode(values, count, lookup, codes);
}
QLORA_VECTORIZED float encode_float16(const Float16* values, int64_t count,
                                      const CodeLookup& lookup, uint8_t* codes) {
  return encode(values, count, lookup, codes);
}

float encode_block(const void* input, ElementType type, int64_t begin, int64_t count,
                   const CodeLookup& lookup, uint8_t* codes) {
  switch (type) {
    case ElementType::kFloat32:
      return encode_float32(static_cast<const float*>(input) + begin, count, lookup, codes);
    case ElementType::kBFloat16:
      return encode_bfloat16(static_cast<const BFloat16*>(input) + begin, count, lookup, codes);
    case ElementType::kFloat16:
      break;
  }
  return encode_float16(static_cast<const Float16*>(input) + begin, count, lookup, codes);
}

template <typename T>
void decode(const Blockwise8DequantizeArguments& a) {
  T* out = static_cast<T*>(a.out);
  parallel_for((a.count + a.block_size - 1) / a.block_size,
               std::max<int64_t>(1, 16384 / a.block_size), [&](int64_t first, int64_t last) {
                 for (int64_t b = first; b < last; ++b) {
                   const int64_t end = std::min(a.count, (b + 1) * a.block_size);
                   for (int64_t i = b * a.block_size; i < end; ++i)
                     store(a.map[a.codes[i]] * a.absmax[b], out[i]);
                 }
               });
}

}  // namespace

float encode_block8(const float* values, int64_t count, const CodeLookup& lookup, uint8_t* codes) {
  return encode_float32(values, count, lookup, codes);
}

void decode_block8(const uint8_t* codes, int64_t count, const float* map, float absmax,
                   float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = map[codes[i]] * absmax;
}

void quantize_blockwise8(const Blockwise8QuantizeArguments& a) {
  const CodeLookup lookup(a.map);
  parallel_for((a.count + a.block_size - 1) / a.block_size,
               std::max<int64_t>(1, 16384 / a.block_size), [&](int64_t first, int64_t last) {
                 for (int64_t b = first; b < last; ++b) {
                   const int64_t begin = b * a.block_size;
                   a.absmax[b] =
                       encode_block(a.input, a.type, begin, std::min(a.block_size, a.count - begin),
                                    lookup, a.codes + begin);
                 }
               });
}

void dequantize_blockwise8(const Blockwise8DequantizeArguments& a) {
  switch (a.type) {
    case ElementType::kFloat32:
      return decode<float>(a);
    case ElementType::kBFloat16:
      return decode<BFloat16>(a);
    case ElementType::kFloat16:
      return decode<Float16>(a);
  }
}

}  // namespace cpu
}  // namespace qlora::quant

#include "quant/gguf/gguf_blocks.h"

#include <algorithm>
#include <cstring>

#include "base/bfloat16.h"
#include "base/error.h"
#include "base/float16.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/element_conversion.h"
#include "quant/gguf/gguf_mxfp4.h"

namespace qlora::quant {
namespace {

using Byte = uint8_t;

float half_at(const Byte* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return float16_to_float(bits);
}

int8_t signed_at(const Byte* bytes) { return static_cast<int8_t>(*bytes); }

// 32 nibbles: byte j holds element j (low) and element j + 16 (high).
template <typename Decode>
void nibbles(const Byte* q, float* out, const Decode& decode) {
  for (int j = 0; j < 16; ++j) out[j] = decode(j, q[j] & 15);
  for (int j = 0; j < 16; ++j) out[j + 16] = decode(j + 16, q[j] >> 4);
}

void q4_0(const Byte* b, float* out) {
  const float d = half_at(b);
  nibbles(b + 2, out, [d](int, int q) { return static_cast<float>(q - 8) * d; });
}

void q4_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  nibbles(b + 4, out, [d, m](int, int q) { return static_cast<float>(q) * d + m; });
}

// The fifth bit of element j is bit j of a 32-bit word.
int fifth_bit(const Byte* word, int j) { return ((word[j >> 3] >> (j & 7)) & 1) << 4; }

void q5_0(const Byte* b, float* out) {
  const float d = half_at(b);
  nibbles(b + 6, out,
          [d, b](int j, int q) { return static_cast<float>((q | fifth_bit(b + 2, j)) - 16) * d; });
}

void q5_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  nibbles(b + 8, out,
          [d, m, b](int j, int q) { return static_cast<float>(q | fifth_bit(b + 4, j)) * d + m; });
}

void q8_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(signed_at(b + 2 + j)) * d;
}

// scales[16] (low nibble: scale, high: minimum), qs[64], d, dmin.
void q2_k(const Byte* b, float* out) {
  const float d = half_at(b + 80), dmin = half_at(b + 82);
  for (int group = 0; group < 16; ++group) {
    const float scale = d * static_cast<float>(b[group] & 15);
    const float minimum = dmin * static_cast<float>(b[group] >> 4);
    const Byte* q = b + 16 + 32 * (group / 8) + 16 * (group % 2);
    const int shift = 2 * (group % 8 / 2);
    for (int j = 0; j < 16; ++j)
      out[16 * group + j] = scale * static_cast<float>((q[j] >> shift) & 3) - minimum;
  }
}

// hmask[32], qs[64], scales[12] of 6 bits less 32, d. An element whose mask bit is clear is 4 less.
void q3_k(const Byte* b, float* out) {
  const float d = half_at(b + 108);
  const Byte* scales = b + 96;
  for (int group = 0; group < 16; ++group) {
    const int low = (scales[group % 8] >> (group < 8 ? 0 : 4)) & 15;
    const int high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    const float scale = d * static_cast<float>((low | (high << 4)) - 32);
    const Byte* q = b + 32 + 32 * (group / 8) + 16 * (group % 2);
    const Byte* mask = b + 16 * (group % 2);
    const int shift = 2 * (group % 8 / 2), bit = group / 2;
    for (int j = 0; j < 16; ++j) {
      const int value = ((q[j] >> shift) & 3) - (((mask[j] >> bit) & 1) ? 0 : 4);
      out[16 * group + j] = scale * static_cast<float>(value);
    }
  }
}

struct ScaleAndMinimum {
  int scale, minimum;
};

// 8 scales and 8 minima of 6 bits in 12 bytes.
ScaleAndMinimum six_bits(const Byte* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)};
}

// d, dmin, scales[12], for Q5_K qh[32], qs[128]: 32 bytes hold two sub-blocks.
void q4_k_or_q5_k(const Byte* b, const Byte* high_bits, const Byte* qs, float* out) {
  const float d = half_at(b), dmin = half_at(b + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMinimum sm = six_bits(b + 4, group);
    const float scale = d * static_cast<float>(sm.scale);
    const float minimum = dmin * static_cast<float>(sm.minimum);
    const Byte* q = qs + 32 * (group / 2);
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) {
      const int high = high_bits ? ((high_bits[j] >> group) & 1) << 4 : 0;
      out[32 * group + j] = scale * static_cast<float>(((q[j] >> shift) & 15) | high) - minimum;
    }
  }
}

void q4_k(const Byte* b, float* out) { q4_k_or_q5_k(b, nullptr, b + 16, out); }
void q5_k(const Byte* b, float* out) { q4_k_or_q5_k(b, b + 16, b + 48, out); }

// ql[128], qh[64], scales[16] of int8, d: two halves of 128 elements.
void q6_k(const Byte* b, float* out) {
  const float d = half_at(b + 208);
  for (int half = 0; half < 2; ++half) {
    const Byte *ql = b + 64 * half, *qh = b + 128 + 32 * half, *scales = b + 192 + 8 * half;
    for (int part = 0; part < 4; ++part) {
      const Byte* low = ql + 32 * (part % 2);
      const int shift = part < 2 ? 0 : 4;
      for (int j = 0; j < 32; ++j) {
        const float scale = d * static_cast<float>(signed_at(scales + 2 * part + j / 16));
        const int q = ((low[j] >> shift) & 15) | (((qh[j] >> (2 * part)) & 3) << 4);
        out[128 * half + 32 * part + j] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

void bf16(const Byte* b, float* out) {
  uint16_t bits;
  std::memcpy(&bits, b, sizeof(bits));
  *out = bfloat16_to_float(bits);
}

void f16(const Byte* b, float* out) { *out = half_at(b); }

constexpr int64_t kLargestBlock = 256;

template <typename T>
[[gnu::always_inline]] inline void store_block(const float* values, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) store(values[i], out[i]);
}
// target_clones do not apply to templates.
QLORA_VECTORIZED void store_as(const float* values, int64_t count, BFloat16* out) {
  store_block(values, count, out);
}
QLORA_VECTORIZED void store_as(const float* values, int64_t count, Float16* out) {
  store_block(values, count, out);
}

using DecodeBlock = void (*)(const Byte*, float*);

template <DecodeBlock decode, typename T>
void decode_to(io::DType dtype, const Byte* bytes, int64_t elements, T* out) {
  const int64_t block = io::elements_per_block(dtype), stride = io::bytes_per_block(dtype);
  parallel_for(elements / block, 16384 / block, [&](int64_t begin, int64_t end) {
    if constexpr (sizeof(T) == sizeof(float)) {
      for (int64_t i = begin; i < end; ++i) decode(bytes + i * stride, out + i * block);
    } else {
      float values[kLargestBlock];
      const int64_t together = kLargestBlock / block;  // small blocks are stored several at once
      for (int64_t i = begin; i < end; i += together) {
        const int64_t count = std::min(together, end - i);
        for (int64_t k = 0; k < count; ++k) decode(bytes + (i + k) * stride, values + k * block);
        store_as(values, count * block, out + i * block);
      }
    }
  });
}

template <DecodeBlock decode>
void decode_all(io::DType dtype, const Byte* bytes, int64_t elements, void* out, ElementType type) {
  switch (type) {
    case ElementType::kFloat32:
      return decode_to<decode>(dtype, bytes, elements, static_cast<float*>(out));
    case ElementType::kBFloat16:
      return decode_to<decode>(dtype, bytes, elements, static_cast<BFloat16*>(out));
    case ElementType::kFloat16:
      return decode_to<decode>(dtype, bytes, elements, static_cast<Float16*>(out));
  }
}

void decode_mxfp4(io::DType dtype, const Byte* bytes, int64_t elements, void* out,
                  ElementType type) {
  cpu::dequantize_gguf_mxfp4(bytes, elements / io::elements_per_block(dtype), out, type);
}

void f32(const Byte* b, float* out) { std::memcpy(out, b, sizeof(float)); }

struct Decoding {
  io::DType dtype;
  void (*decode)(io::DType, const Byte*, int64_t, void*, ElementType);
};

constexpr Decoding kDecodings[] = {
    {io::DType::kF32, decode_all<f32>},   {io::DType::kF16, decode_all<f16>},
    {io::DType::kBF16, decode_all<bf16>}, {io::DType::kQ4_0, decode_all<q4_0>},
    {io::DType::kQ4_1, decode_all<q4_1>}, {io::DType::kQ5_0, decode_all<q5_0>},
    {io::DType::kQ5_1, decode_all<q5_1>}, {io::DType::kQ8_0, decode_all<q8_0>},
    {io::DType::kQ2_K, decode_all<q2_k>}, {io::DType::kQ3_K, decode_all<q3_k>},
    {io::DType::kQ4_K, decode_all<q4_k>}, {io::DType::kQ5_K, decode_all<q5_k>},
    {io::DType::kQ6_K, decode_all<q6_k>}, {io::DType::kMXFP4, decode_mxfp4},
};

}  // namespace

void dequantize_gguf_blocks(io::DType dtype, const std::byte* blocks, int64_t elements, void* out,
                            ElementType type) {
  check(elements % io::elements_per_block(dtype) == 0, "{} elements are no whole blocks of {}",
        elements, io::dtype_name(dtype));
  for (const Decoding& decoding : kDecodings)
    if (decoding.dtype == dtype)
      return decoding.decode(dtype, reinterpret_cast<const Byte*>(blocks), elements, out, type);
  fail<Error>("elements of type {} hold no weights", io::dtype_name(dtype));
}

}  // namespace qlora::quant

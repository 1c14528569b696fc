#include "quant/gguf/gguf_blocks.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "base/bfloat16.h"
#include "base/element.h"
#include "base/error.h"
#include "base/float16.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/with_element_type.h"
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

// Block decoders are inlined into loops over blocks that are compiled for each instruction set.
#define QLORA_INLINE [[gnu::always_inline]] inline

// 32 nibbles: byte j holds element j (low) and element j + 16 (high).
template <typename Decode>
QLORA_INLINE void nibbles(const Byte* q, float* out, const Decode& decode) {
  for (int j = 0; j < 16; ++j) out[j] = decode(j, q[j] & 15);
  for (int j = 0; j < 16; ++j) out[j + 16] = decode(j + 16, q[j] >> 4);
}

QLORA_INLINE void q4_0(const Byte* b, float* out) {
  const float d = half_at(b);
  nibbles(b + 2, out, [d](int, int q) { return static_cast<float>(q - 8) * d; });
}

QLORA_INLINE void q4_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  nibbles(b + 4, out, [d, m](int, int q) { return static_cast<float>(q) * d + m; });
}

// The fifth bit of element j is bit j of a 32-bit word.
QLORA_INLINE uint32_t fifth_bits(const Byte* bytes) {
  uint32_t word;
  std::memcpy(&word, bytes, sizeof(word));
  return word;
}
QLORA_INLINE int with_fifth_bit(int nibble, uint32_t bits, int j) {
  return nibble | static_cast<int>((bits >> j) & 1) << 4;
}

QLORA_INLINE void q5_0(const Byte* b, float* out) {
  const float d = half_at(b);
  const uint32_t fifth = fifth_bits(b + 2);
  nibbles(b + 6, out, [d, fifth](int j, int q) {
    return static_cast<float>(with_fifth_bit(q, fifth, j) - 16) * d;
  });
}

QLORA_INLINE void q5_1(const Byte* b, float* out) {
  const float d = half_at(b), m = half_at(b + 2);
  const uint32_t fifth = fifth_bits(b + 4);
  nibbles(b + 8, out, [d, m, fifth](int j, int q) {
    return static_cast<float>(with_fifth_bit(q, fifth, j)) * d + m;
  });
}

QLORA_INLINE void q8_0(const Byte* b, float* out) {
  const float d = half_at(b);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(signed_at(b + 2 + j)) * d;
}

// scales[16] (low nibble: scale, high: minimum), qs[64], d, dmin.
QLORA_INLINE void q2_k(const Byte* b, float* out) {
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
QLORA_INLINE void q3_k(const Byte* b, float* out) {
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
QLORA_INLINE ScaleAndMinimum six_bits(const Byte* s, int j) {
  if (j < 4) return {s[j] & 63, s[j + 4] & 63};
  return {(s[j + 4] & 15) | ((s[j - 4] >> 6) << 4), (s[j + 4] >> 4) | ((s[j] >> 6) << 4)};
}

// d, dmin, scales[12], for Q5_K qh[32], qs[128]: 32 bytes hold two sub-blocks.
QLORA_INLINE void q4_k_or_q5_k(const Byte* b, const Byte* high_bits, const Byte* qs, float* out) {
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

QLORA_INLINE void q4_k(const Byte* b, float* out) { q4_k_or_q5_k(b, nullptr, b + 16, out); }
QLORA_INLINE void q5_k(const Byte* b, float* out) { q4_k_or_q5_k(b, b + 16, b + 48, out); }

// ql[128], qh[64], scales[16] of int8, d: two halves of 128 elements.
QLORA_INLINE void q6_k(const Byte* b, float* out) {
  const float d = half_at(b + 208);
  for (int group = 0; group < 16; ++group) {
    const int half = group / 8, part = group % 8 / 2, first = 16 * (group % 2);
    const float scale = d * static_cast<float>(signed_at(b + 192 + group));
    const Byte* low = b + 64 * half + 32 * (part % 2) + first;
    const Byte* high = b + 128 + 32 * half + first;
    const int shift = part < 2 ? 0 : 4, high_shift = 2 * part;
    for (int j = 0; j < 16; ++j) {
      const int q = ((low[j] >> shift) & 15) | (((high[j] >> high_shift) & 3) << 4);
      out[16 * group + j] = scale * static_cast<float>(q - 32);
    }
  }
}

QLORA_INLINE void bf16(const Byte* b, float* out) {
  uint16_t bits;
  std::memcpy(&bits, b, sizeof(bits));
  *out = bfloat16_to_float(bits);
}

QLORA_INLINE void f16(const Byte* b, float* out) { *out = half_at(b); }

QLORA_INLINE void f32(const Byte* b, float* out) { std::memcpy(out, b, sizeof(float)); }

QLORA_INLINE void f64(const Byte* b, float* out) {
  double value;
  std::memcpy(&value, b, sizeof(value));
  *out = static_cast<float>(value);
}

// A NaN stays one whatever its bits are.
QLORA_INLINE void put(float value, float& out) { out = value; }
QLORA_INLINE void put(float value, uint16_t& out) { out = float_to_bfloat16(value); }
QLORA_INLINE void put(float value, Float16& out) {
  out = std::bit_cast<Float16>(float_to_float16(value));
}

constexpr int64_t kTogether = 256;  // elements that are decoded before they are stored

// Whole blocks of kBlock elements and kStride bytes. Elements come into an array of their own
// first: bytes may lie anywhere, also where `out` does, for what the compiler knows.
template <int64_t kBlock, int64_t kStride, typename Decode, typename T>
QLORA_INLINE void decode_blocks(const Decode& decode, const Byte* bytes, int64_t blocks, T* out) {
  constexpr int64_t kStep = kTogether / kBlock;
  float values[kTogether];
  for (int64_t i = 0; i < blocks; i += kStep) {
    const int64_t count = std::min(kStep, blocks - i);
    for (int64_t k = 0; k < count; ++k) decode(bytes + (i + k) * kStride, values + k * kBlock);
    for (int64_t j = 0; j < count * kBlock; ++j) put(values[j], out[i * kBlock + j]);
  }
}

// A decoder of FORMAT's blocks for each type of element; target_clones do not apply to templates.
#define QLORA_DECODER_TO(T, FORMAT, BLOCK, STRIDE)                                    \
  QLORA_VECTORIZED void FORMAT##_blocks(const Byte* bytes, int64_t blocks, T* out) {  \
    const auto decode = [](const Byte* b, float* to) __attribute__((always_inline)) { \
      FORMAT(b, to);                                                                  \
    };                                                                                \
    decode_blocks<BLOCK, STRIDE>(decode, bytes, blocks, out);                         \
  }
#define QLORA_DECODER(FORMAT, BLOCK, STRIDE)                        \
  QLORA_DECODER_TO(float, FORMAT, BLOCK, STRIDE)                    \
  QLORA_DECODER_TO(uint16_t, FORMAT, BLOCK, STRIDE)                 \
  QLORA_DECODER_TO(Float16, FORMAT, BLOCK, STRIDE)                  \
  struct Of_##FORMAT {                                              \
    template <typename T>                                           \
    static void decode(const Byte* bytes, int64_t blocks, T* out) { \
      FORMAT##_blocks(bytes, blocks, out);                          \
    }                                                               \
  };
QLORA_DECODER(f64, 1, 8)
QLORA_DECODER(f32, 1, 4)
QLORA_DECODER(f16, 1, 2)
QLORA_DECODER(bf16, 1, 2)
QLORA_DECODER(q4_0, 32, 18)
QLORA_DECODER(q4_1, 32, 20)
QLORA_DECODER(q5_0, 32, 22)
QLORA_DECODER(q5_1, 32, 24)
QLORA_DECODER(q8_0, 32, 34)
QLORA_DECODER(q2_k, 256, 84)
QLORA_DECODER(q3_k, 256, 110)
QLORA_DECODER(q4_k, 256, 144)
QLORA_DECODER(q5_k, 256, 176)
QLORA_DECODER(q6_k, 256, 210)
#undef QLORA_DECODER
#undef QLORA_DECODER_TO

template <typename Format>
void decode_all(io::DType dtype, const Byte* bytes, int64_t elements, void* out, ElementType type) {
  const int64_t block = io::elements_per_block(dtype), stride = io::bytes_per_block(dtype);
  with_element_type(type, [&]<typename T>(std::type_identity<T>) {
    parallel_for(elements / block, 16384 / block, [&](int64_t begin, int64_t end) {
      Format::decode(bytes + begin * stride, end - begin, static_cast<T*>(out) + begin * block);
    });
  });
}

void decode_mxfp4(io::DType dtype, const Byte* bytes, int64_t elements, void* out,
                  ElementType type) {
  cpu::dequantize_gguf_mxfp4(bytes, elements / io::elements_per_block(dtype), out, type);
}

struct Decoding {
  io::DType dtype;
  void (*decode)(io::DType, const Byte*, int64_t, void*, ElementType);
};

constexpr Decoding kDecodings[] = {
    {io::DType::kF64, decode_all<Of_f64>},   {io::DType::kF32, decode_all<Of_f32>},
    {io::DType::kF16, decode_all<Of_f16>},   {io::DType::kBF16, decode_all<Of_bf16>},
    {io::DType::kQ4_0, decode_all<Of_q4_0>}, {io::DType::kQ4_1, decode_all<Of_q4_1>},
    {io::DType::kQ5_0, decode_all<Of_q5_0>}, {io::DType::kQ5_1, decode_all<Of_q5_1>},
    {io::DType::kQ8_0, decode_all<Of_q8_0>}, {io::DType::kQ2_K, decode_all<Of_q2_k>},
    {io::DType::kQ3_K, decode_all<Of_q3_k>}, {io::DType::kQ4_K, decode_all<Of_q4_k>},
    {io::DType::kQ5_K, decode_all<Of_q5_k>}, {io::DType::kQ6_K, decode_all<Of_q6_k>},
    {io::DType::kMXFP4, decode_mxfp4},
};

#undef QLORA_INLINE

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

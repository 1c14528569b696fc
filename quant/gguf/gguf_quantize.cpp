#include "quant/gguf/gguf_quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/bfloat16.h"
#include "base/error.h"
#include "base/float16.h"
#include "base/parallel_for.h"
#include "quant/gguf/gguf_arithmetic.h"
#include "quant/gguf/gguf_least_squares.h"

namespace qlora::quant {
namespace {

using Byte = uint8_t;

void put_half(float value, Byte* bytes) {
  const uint16_t bits = float_to_float16(value);
  std::memcpy(bytes, &bits, sizeof(bits));
}

float inverse_or_zero(float value) { return value != 0 ? 1.0f / value : 0.0f; }

// Of 32 codes: byte j holds code j (low) and code j + 16 (high), four bits each.
void put_nibbles(const std::array<int, 32>& codes, Byte* bytes) {
  for (size_t j = 0; j < 16; ++j)
    bytes[j] = static_cast<Byte>((codes[j] & 15) | ((codes[j + 16] & 15) << 4));
}

// Bit j of a 32-bit word is the fifth bit of code j.
void put_fifth_bits(const std::array<int, 32>& codes, Byte* bytes) {
  uint32_t word = 0;
  for (size_t j = 0; j < 32; ++j) word |= (static_cast<uint32_t>(codes[j] & 16) >> 4) << j;
  std::memcpy(bytes, &word, sizeof(word));
}

float of_largest_magnitude(const float* x) {
  float magnitude = 0, largest = 0;
  for (int j = 0; j < 32; ++j)
    if (magnitude < std::fabs(x[j])) {
      magnitude = std::fabs(x[j]);
      largest = x[j];
    }
  return largest;
}

// Codes of `half` on either side of zero.
std::array<int, 32> signed_codes(const float* x, int half, Byte* scale) {
  const float d = of_largest_magnitude(x) / static_cast<float>(-half);
  const float inverse = inverse_or_zero(d), middle = static_cast<float>(half) + 0.5f;
  put_half(d, scale);
  std::array<int, 32> codes;
  for (size_t j = 0; j < 32; ++j)
    codes[j] = std::min(2 * half - 1, static_cast<int>(x[j] * inverse + middle));
  return codes;
}

// Codes from 0 to `limit`, counted from the smallest number.
std::array<int, 32> codes_from_smallest(const float* x, int limit, Byte* scale, Byte* minimum) {
  const float *smallest = std::min_element(x, x + 32), *largest = std::max_element(x, x + 32);
  const float d = (*largest - *smallest) / static_cast<float>(limit);
  const float inverse = inverse_or_zero(d);
  put_half(d, scale);
  put_half(*smallest, minimum);
  std::array<int, 32> codes;
  for (size_t j = 0; j < 32; ++j)
    codes[j] = std::min(limit, static_cast<int>((x[j] - *smallest) * inverse + 0.5f));
  return codes;
}

void q4_0(const float* x, Byte* b) { put_nibbles(signed_codes(x, 8, b), b + 2); }

void q4_1(const float* x, Byte* b) { put_nibbles(codes_from_smallest(x, 15, b, b + 2), b + 4); }

void q5_0(const float* x, Byte* b) {
  const auto codes = signed_codes(x, 16, b);
  put_fifth_bits(codes, b + 2);
  put_nibbles(codes, b + 6);
}

void q5_1(const float* x, Byte* b) {
  const auto codes = codes_from_smallest(x, 31, b, b + 2);
  put_fifth_bits(codes, b + 4);
  put_nibbles(codes, b + 8);
}

void q8_0(const float* x, Byte* b) {
  const float d = std::fabs(of_largest_magnitude(x)) / 127.0f;
  const float inverse = inverse_or_zero(d);
  put_half(d, b);
  for (int j = 0; j < 32; ++j)
    b[2 + j] = static_cast<Byte>(static_cast<int8_t>(std::round(x[j] * inverse)));
}

constexpr int kSuper = 256;  // elements of a K block

// Scales and minima of 8 sub-blocks, 6 bits each (gguf::SixBits).
void put_six_bits(const std::array<int, 8>& scales, const std::array<int, 8>& minima, Byte* s) {
  for (size_t j = 0; j < 4; ++j) {
    s[j] = static_cast<Byte>(scales[j] | ((scales[j + 4] >> 4) << 6));
    s[j + 4] = static_cast<Byte>(minima[j] | ((minima[j + 4] >> 4) << 6));
    s[j + 8] = static_cast<Byte>((scales[j + 4] & 15) | ((minima[j + 4] & 15) << 4));
  }
}

std::array<int, 8> in_six_bits(const std::array<float, 8>& values, float largest) {
  const float inverse = largest > 0 ? 63.0f / largest : 0.0f;
  std::array<int, 8> codes;
  for (size_t j = 0; j < 8; ++j)  // a scale below zero wraps in llama.cpp's byte, too
    codes[j] = std::min<int>(63, static_cast<Byte>(gguf::nearest_integer(inverse * values[j])));
  return codes;
}

// Each element weighs the root mean square of its sub-block and its own magnitude.
std::array<float, 32> weights_of(const float* x) {
  float squares = 0;
  for (int j = 0; j < 32; ++j) squares += x[j] * x[j];
  const float mean = std::sqrt(squares / 32);
  std::array<float, 32> weights;
  for (size_t j = 0; j < 32; ++j) weights[j] = mean + std::fabs(x[j]);
  return weights;
}

// Writes d, dmin and the 6-bit scales to the first 16 bytes of the block, and gives the codes, 0 to
// `limit`.
std::array<Byte, kSuper> codes_with_minima(const float* x, int limit,
                                           const gguf::RoundingSearch& search, Byte* b) {
  std::array<Byte, kSuper> codes;
  std::array<float, 8> scales, minima;
  float largest_scale = 0, largest_minimum = 0;
  for (size_t j = 0; j < 8; ++j) {
    const float* part = x + 32 * j;
    const auto fit = gguf::scale_and_minimum({part, 32}, weights_of(part), limit, search,
                                             std::span<Byte>(codes).subspan(32 * j, 32));
    scales[j] = fit.scale;
    minima[j] = fit.minimum;
    largest_scale = std::max(largest_scale, fit.scale);
    largest_minimum = std::max(largest_minimum, fit.minimum);
  }
  put_six_bits(in_six_bits(scales, largest_scale), in_six_bits(minima, largest_minimum), b + 4);
  put_half(largest_scale / 63.0f, b);
  put_half(largest_minimum / 63.0f, b + 2);
  for (size_t j = 0; j < 8; ++j) {  // once more, with the scales as they were stored
    const gguf::SixBits stored(b + 4, static_cast<int>(j));
    const float d = gguf::half_at(b) * static_cast<float>(stored.scale);
    if (d == 0) continue;
    const float minimum = gguf::half_at(b + 2) * static_cast<float>(stored.minimum);
    for (size_t i = 32 * j; i < 32 * (j + 1); ++i)
      codes[i] =
          static_cast<Byte>(std::clamp(gguf::nearest_integer((x[i] + minimum) / d), 0, limit));
  }
  return codes;
}

// Of each 64 codes: byte l holds the low four bits of codes l and l + 32.
void put_pairs_of_32(const std::array<Byte, kSuper>& codes, Byte* q) {
  for (size_t first = 0; first < kSuper; first += 64, q += 32)
    for (size_t l = 0; l < 32; ++l)
      q[l] = static_cast<Byte>((codes[first + l] & 15) | ((codes[first + l + 32] & 15) << 4));
}

void q4_k(const float* x, Byte* b) {
  put_pairs_of_32(codes_with_minima(x, 15, {-1.0f, 0.1f, 20}, b), b + 16);
}

void q5_k(const float* x, Byte* b) {
  const auto codes = codes_with_minima(x, 31, {-0.5f, 0.1f, 15}, b);
  Byte* fifth = b + 16;
  std::fill_n(fifth, 32, Byte{0});
  for (size_t i = 0; i < kSuper; ++i)  // bit j of byte l: code 32 j + l
    fifth[i % 32] = static_cast<Byte>(fifth[i % 32] | ((codes[i] >> 4) << (i / 32)));
  put_pairs_of_32(codes, b + 48);
}

// Four low bits of 256 codes in 128 bytes, two high bits in 64.
void put_six_bit_codes(const std::array<Byte, kSuper>& codes, Byte* low, Byte* high) {
  for (size_t first = 0; first < kSuper; first += 128, low += 64, high += 32)
    for (size_t l = 0; l < 32; ++l) {
      const Byte* c = codes.data() + first + l;
      low[l] = static_cast<Byte>((c[0] & 15) | ((c[64] & 15) << 4));
      low[l + 32] = static_cast<Byte>((c[32] & 15) | ((c[96] & 15) << 4));
      high[l] = static_cast<Byte>((c[0] >> 4) | ((c[32] >> 4) << 2) | ((c[64] >> 4) << 4) |
                                  ((c[96] >> 4) << 6));
    }
}

void q6_k(const float* x, Byte* b) {
  constexpr size_t kGroups = 16;
  Byte *low = b, *high = b + 128, *stored_scales = b + 192, *stored_d = b + 208;
  std::array<Byte, kSuper> codes;
  std::array<float, kGroups> scales;
  float largest = 0;
  for (size_t g = 0; g < kGroups; ++g) {
    scales[g] =
        gguf::signed_scale({x + 16 * g, 16}, 32, std::span<Byte>(codes).subspan(16 * g, 16));
    if (std::fabs(scales[g]) > std::fabs(largest)) largest = scales[g];
  }
  if (std::fabs(largest) < 1e-15f) {
    std::fill_n(b, 210, Byte{0});
    return;
  }
  const float inverse = -128.0f / largest;
  put_half(1 / inverse, stored_d);
  for (size_t g = 0; g < kGroups; ++g) {
    const int scale = std::min(127, gguf::nearest_integer(inverse * scales[g]));
    stored_scales[g] = static_cast<Byte>(static_cast<int8_t>(scale));
    const float d = gguf::half_at(stored_d) * static_cast<float>(scale);
    if (d == 0) continue;
    for (size_t i = 16 * g; i < 16 * (g + 1); ++i)
      codes[i] = static_cast<Byte>(std::clamp(gguf::nearest_integer(x[i] / d), -32, 31) + 32);
  }
  put_six_bit_codes(codes, low, high);
}

void f32(const float* x, Byte* b) { std::memcpy(b, x, sizeof(float)); }
void f16(const float* x, Byte* b) { put_half(*x, b); }
void bf16(const float* x, Byte* b) {
  const uint16_t bits = float_to_bfloat16(*x);
  std::memcpy(b, &bits, sizeof(bits));
}

struct Encoding {
  io::DType dtype;
  void (*encode)(const float* values, Byte* block);
};

constexpr Encoding kEncodings[] = {
    {io::DType::kF32, f32},   {io::DType::kF16, f16},   {io::DType::kBF16, bf16},
    {io::DType::kQ4_0, q4_0}, {io::DType::kQ4_1, q4_1}, {io::DType::kQ5_0, q5_0},
    {io::DType::kQ5_1, q5_1}, {io::DType::kQ8_0, q8_0}, {io::DType::kQ4_K, q4_k},
    {io::DType::kQ5_K, q5_k}, {io::DType::kQ6_K, q6_k}};

const Encoding* find(io::DType dtype) {
  const auto* found = std::ranges::find(kEncodings, dtype, &Encoding::dtype);
  return found == std::end(kEncodings) ? nullptr : found;
}

}  // namespace

bool is_gguf_encoding(io::DType dtype) { return find(dtype) != nullptr; }

void quantize_gguf_blocks(io::DType dtype, const float* values, int64_t elements,
                          std::byte* blocks) {
  const Encoding* encoding = find(dtype);
  check(encoding != nullptr, "weights are not written as {}", io::dtype_name(dtype));
  const int64_t block = io::elements_per_block(dtype), stride = io::bytes_per_block(dtype);
  check(elements % block == 0, "{} elements are no whole blocks of {}", elements,
        io::dtype_name(dtype));
  auto* bytes = reinterpret_cast<Byte*>(blocks);
  parallel_for(elements / block, 4096 / block, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) encoding->encode(values + i * block, bytes + i * stride);
  });
}

}  // namespace qlora::quant

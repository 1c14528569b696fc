// The block formats of GGUF, eight elements at a time: what the CUDA kernel gives to one thread.
// The formulas are those of gguf_blocks.h, in the same order of roundings, so that both decode the
// same bits; a test on the CPU holds them side by side.
//
// A format is made from its block and the first of the eight elements (a multiple of 8) and gives
// element first + j. Eight such elements share scale, minimum and shift in every format.
#pragma once

#include "quant/gguf/gguf_arithmetic.h"

namespace qlora::quant::gguf {

// d, then 32 nibbles: byte j holds element j (low) and element j + 16 (high).
struct Q4_0 {
  static constexpr int kElements = 32, kBytes = 18;
  float d;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q4_0(const uint8_t* b, int first)
      : d(half_at(b)), q(b + 2 + first % 16), shift(first < 16 ? 0 : 4) {}
  QLORA_ELEMENT float operator()(int j) const {
    return product(static_cast<float>(((q[j] >> shift) & 15) - 8), d);
  }
};

// d, m, nibbles.
struct Q4_1 {
  static constexpr int kElements = 32, kBytes = 20;
  float d, m;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q4_1(const uint8_t* b, int first)
      : d(half_at(b)), m(half_at(b + 2)), q(b + 4 + first % 16), shift(first < 16 ? 0 : 4) {}
  QLORA_ELEMENT float operator()(int j) const {
    return sum(product(static_cast<float>((q[j] >> shift) & 15), d), m);
  }
};

// d, the fifth bits of all elements in 4 bytes, nibbles.
struct Q5_0 {
  static constexpr int kElements = 32, kBytes = 22;
  float d;
  int fifth;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q5_0(const uint8_t* b, int first)
      : d(half_at(b)), fifth(b[2 + first / 8]), q(b + 6 + first % 16), shift(first < 16 ? 0 : 4) {}
  QLORA_ELEMENT float operator()(int j) const {
    const int value = ((q[j] >> shift) & 15) | (((fifth >> j) & 1) << 4);
    return product(static_cast<float>(value - 16), d);
  }
};

// d, m, fifth bits, nibbles.
struct Q5_1 {
  static constexpr int kElements = 32, kBytes = 24;
  float d, m;
  int fifth;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q5_1(const uint8_t* b, int first)
      : d(half_at(b)),
        m(half_at(b + 2)),
        fifth(b[4 + first / 8]),
        q(b + 8 + first % 16),
        shift(first < 16 ? 0 : 4) {}
  QLORA_ELEMENT float operator()(int j) const {
    const int value = ((q[j] >> shift) & 15) | (((fifth >> j) & 1) << 4);
    return sum(product(static_cast<float>(value), d), m);
  }
};

// d, signed bytes.
struct Q8_0 {
  static constexpr int kElements = 32, kBytes = 34;
  float d;
  const uint8_t* q;
  QLORA_ELEMENT Q8_0(const uint8_t* b, int first) : d(half_at(b)), q(b + 2 + first) {}
  QLORA_ELEMENT float operator()(int j) const {
    return product(static_cast<float>(static_cast<int8_t>(q[j])), d);
  }
};

// scales[16] (low nibble: scale, high: minimum), qs[64], d, dmin.
struct Q2_K {
  static constexpr int kElements = 256, kBytes = 84;
  float scale, minimum;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q2_K(const uint8_t* b, int first) {
    const int group = first / 16;
    scale = product(half_at(b + 80), static_cast<float>(b[group] & 15));
    minimum = product(half_at(b + 82), static_cast<float>(b[group] >> 4));
    q = b + 16 + 32 * (group / 8) + first % 32;
    shift = 2 * (group % 8 / 2);
  }
  QLORA_ELEMENT float operator()(int j) const {
    return difference(product(scale, static_cast<float>((q[j] >> shift) & 3)), minimum);
  }
};

// hmask[32], qs[64], scales[12] of 6 bits less 32, d. An element whose mask bit is clear is 4 less.
struct Q3_K {
  static constexpr int kElements = 256, kBytes = 110;
  float scale;
  const uint8_t *q, *mask;
  int shift, bit;
  QLORA_ELEMENT Q3_K(const uint8_t* b, int first) {
    const int group = first / 16;
    const uint8_t* scales = b + 96;
    const int low = (scales[group % 8] >> (group < 8 ? 0 : 4)) & 15;
    const int high = (scales[8 + group % 4] >> (2 * (group / 4))) & 3;
    scale = product(half_at(b + 108), static_cast<float>((low | (high << 4)) - 32));
    q = b + 32 + 32 * (group / 8) + first % 32;
    mask = b + first % 32;
    shift = 2 * (group % 8 / 2);
    bit = group / 2;
  }
  QLORA_ELEMENT float operator()(int j) const {
    const int value = ((q[j] >> shift) & 3) - (((mask[j] >> bit) & 1) ? 0 : 4);
    return product(scale, static_cast<float>(value));
  }
};

// d, dmin, scales[12], qs[128]: 32 bytes hold two sub-blocks.
struct Q4_K {
  static constexpr int kElements = 256, kBytes = 144;
  float scale, minimum;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT Q4_K(const uint8_t* b, int first) {
    const int group = first / 32;
    const SixBits bits(b + 4, group);
    scale = product(half_at(b), static_cast<float>(bits.scale));
    minimum = product(half_at(b + 2), static_cast<float>(bits.minimum));
    q = b + 16 + 32 * (group / 2) + first % 32;
    shift = 4 * (group % 2);
  }
  QLORA_ELEMENT float operator()(int j) const {
    return difference(product(scale, static_cast<float>((q[j] >> shift) & 15)), minimum);
  }
};

// d, dmin, scales[12], qh[32] with bit g of byte j for element j of sub-block g, qs[128].
struct Q5_K {
  static constexpr int kElements = 256, kBytes = 176;
  float scale, minimum;
  const uint8_t *q, *fifth;
  int shift, group;
  QLORA_ELEMENT Q5_K(const uint8_t* b, int first) {
    group = first / 32;
    const SixBits bits(b + 4, group);
    scale = product(half_at(b), static_cast<float>(bits.scale));
    minimum = product(half_at(b + 2), static_cast<float>(bits.minimum));
    fifth = b + 16 + first % 32;
    q = b + 48 + 32 * (group / 2) + first % 32;
    shift = 4 * (group % 2);
  }
  QLORA_ELEMENT float operator()(int j) const {
    const int value = ((q[j] >> shift) & 15) | (((fifth[j] >> group) & 1) << 4);
    return difference(product(scale, static_cast<float>(value)), minimum);
  }
};

// ql[128], qh[64], scales[16] of int8, d: two halves of 128 elements.
struct Q6_K {
  static constexpr int kElements = 256, kBytes = 210;
  float scale;
  const uint8_t *low, *high;
  int shift, high_shift;
  QLORA_ELEMENT Q6_K(const uint8_t* b, int first) {
    const int half = first / 128, part = first % 128 / 32, j = first % 32;
    const auto step = static_cast<int8_t>(b[192 + 8 * half + 2 * part + j / 16]);
    scale = product(half_at(b + 208), static_cast<float>(step));
    low = b + 64 * half + 32 * (part % 2) + j;
    high = b + 128 + 32 * half + j;
    shift = part < 2 ? 0 : 4;
    high_shift = 2 * part;
  }
  QLORA_ELEMENT float operator()(int j) const {
    const int value = ((low[j] >> shift) & 15) | (((high[j] >> high_shift) & 3) << 4);
    return product(scale, static_cast<float>(value - 32));
  }
};

// A power of two in one byte, nibbles.
struct MXFP4 {
  static constexpr int kElements = 32, kBytes = 17;
  float d;
  const uint8_t* q;
  int shift;
  QLORA_ELEMENT MXFP4(const uint8_t* b, int first)
      : d(halved_e8m0(b[0])), q(b + 1 + first % 16), shift(first < 16 ? 0 : 4) {}
  QLORA_ELEMENT float operator()(int j) const {
    return product(static_cast<float>(doubled_e2m1(q[j] >> shift)), d);
  }
};

}  // namespace qlora::quant::gguf

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "base/vectorize.h"
#include "quant/elements/with_element_type.h"
#include "quant/grouped/grouped_decoders.h"

#define QLORA_SIMD_BFLOAT16
#define QLORA_SIMD_LOOPS "quant/grouped/grouped_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread is worth waking for

constexpr uint64_t ones(int count) { return count == 64 ? ~0ull : (1ull << count) - 1; }

// Masks that leave every second part of the steps below.
template <int kBits>
constexpr uint64_t kEachByte = ones(kBits) * 0x0101010101010101;
template <int kBits>
constexpr uint64_t kPairs = ones(2 * kBits) * 0x0001000100010001;
template <int kBits>
constexpr uint64_t kFours = ones(4 * kBits) * 0x0000000100000001;

// Eight codes one after the other, first in the lowest bits -> one in each byte. Halves move apart,
// then their halves.
template <int kBits>
uint64_t spread(uint64_t codes) {
  codes = (codes | codes << (32 - 4 * kBits)) & kFours<kBits>;
  codes = (codes | codes << (16 - 2 * kBits)) & kPairs<kBits>;
  return (codes | codes << (8 - kBits)) & kEachByte<kBits>;
}

template <int kBits>
uint64_t gather(uint64_t codes) {
  codes = (codes | codes >> (8 - kBits)) & kPairs<kBits>;
  codes = (codes | codes >> (16 - 2 * kBits)) & kFours<kBits>;
  return (codes | codes >> (32 - 4 * kBits)) & ones(8 * kBits);
}

// Eight codes fill kBits bytes.
template <int kBits>
void unpack_row(const uint8_t* packed, int64_t columns, uint8_t* codes) {
  for (; columns >= 8; columns -= 8, packed += kBits, codes += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, packed, kBits);
    eight = spread<kBits>(eight);
    std::memcpy(codes, &eight, 8);
  }
  uint64_t last = 0;
  std::memcpy(&last, packed, static_cast<size_t>((columns * kBits + 7) / 8));
  last = spread<kBits>(last);
  std::memcpy(codes, &last, static_cast<size_t>(columns));
}

template <int kBits>
void pack_row(const uint8_t* codes, int64_t columns, uint8_t* packed) {
  for (; columns >= 8; columns -= 8, packed += kBits, codes += 8) {
    uint64_t eight;
    std::memcpy(&eight, codes, 8);
    eight = gather<kBits>(eight);
    std::memcpy(packed, &eight, kBits);
  }
  uint64_t last = 0;
  std::memcpy(&last, codes, static_cast<size_t>(columns));
  last = gather<kBits>(last);
  std::memcpy(packed, &last, static_cast<size_t>((columns * kBits + 7) / 8));
}

// Calls f(constant bits); of 1 to 4 bits.
template <typename F>
void with_packed_bits(int bits, const F& f) {
  switch (bits) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
    case 3:
      return f(std::integral_constant<int, 3>());
    default:
      return f(std::integral_constant<int, 4>());
  }
}

template <typename F>
void with_bits(int bits, const F& f) {
  bits == 8 ? f(std::integral_constant<int, 8>()) : with_packed_bits(bits, f);
}

template <typename F>
void for_each_row(int64_t begin, int64_t end, int64_t in, const F& f) {
  parallel_for(end - begin, std::max<int64_t>(1, kGrain / in),
               [&](int64_t first, int64_t last) { f(begin + first, begin + last); });
}

// Codes of kBits, 1 to 4, in whole units.
template <int kBits, typename T>
void decode_codes_portable(const GroupedRow& row, T* out) {
  static constexpr uint8_t kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const uint8_t* codes = row.codes;
  for (int64_t first = 0, g = 0; first < row.columns; first += row.group_size, ++g) {
    T values[16];
    simd::baseline::decode_group(kCodes, 16, row.scales[g], row.zeros[g], values);
    for (int64_t left = std::min(row.group_size, row.columns - first); left > 0;
         left -= 8, codes += kBits, out += 8) {
      uint32_t eight = 0;
      std::memcpy(&eight, codes, kBits);
      for (int i = 0; i < 8; ++i) out[i] = values[eight >> (i * kBits) & ones(kBits)];
    }
  }
}

template <int kBits, typename T>
void decode_codes(const GroupedRow& row, [[maybe_unused]] ElementType type, T* out) {
#ifdef __x86_64__
  if (has_avx512()) return decode_codes_avx512<kBits>(row, type, out);
  if (has_avx2()) return decode_codes_avx2<kBits>(row, type, out);
#endif
  decode_codes_portable<kBits>(row, out);
}

template <typename T>
using DecodeBytes = void (*)(const GroupedRow&, T*);

template <typename T>
DecodeBytes<T> ordinary_byte_decoder() {
#ifdef __x86_64__
  if constexpr (std::is_same_v<T, uint16_t>)
    if (has_avx512_bfloat16()) return simd::avx512_bfloat16::decode_ordinary_bytes<T>;
  if (has_avx512()) return simd::avx512::decode_ordinary_bytes<T>;
  if (has_avx2()) return simd::avx2::decode_ordinary_bytes<T>;
#endif
  return simd::baseline::decode_ordinary_bytes<T>;
}

template <typename T>
void decode_bytes(const GroupedRow& row, const int32_t* group_of, T* out) {
  const auto decode = [&](auto in_order, auto scattered) {
    return group_of == nullptr ? in_order(row, out) : scattered(row, group_of, out);
  };
  if constexpr (sizeof(T) == 2) {
    const auto groups = [&] { return (row.columns - 1) / row.group_size + 1; };
    if (group_of == nullptr && are_ordinary(row.scales, row.zeros, groups()))
      return ordinary_byte_decoder<T>()(row, out);
  }
#ifdef __x86_64__
  if (has_avx512())
    return decode(simd::avx512::decode_bytes<T>, simd::avx512::decode_scattered_bytes<T>);
  if (has_avx2()) return decode(simd::avx2::decode_bytes<T>, simd::avx2::decode_scattered_bytes<T>);
#endif
  decode(simd::baseline::decode_bytes<T>, simd::baseline::decode_scattered_bytes<T>);
}

// Decodes rows of one weight, one by one.
class RowDecoder {
 public:
  explicit RowDecoder(const GroupedRows& weight)
      : weight_(weight),
        scales_(static_cast<size_t>(weight.groups)),
        zeros_(scales_.size()),
        bytes_(weight.bits == 8 ? 0 : static_cast<size_t>(weight.in)) {
    const bool in_units = weight.group_of == nullptr && weight.group_size % kCodeUnit == 0;
    if (weight.bits <= 4 && in_units) in_units_ = weight.in / kCodeUnit * kCodeUnit;
  }

  template <typename T>
  void decode(int64_t row, ElementType type, T* out) {
    widen_scales_and_zeros(weight_, row, 1, scales_.data(), zeros_.data());
    const uint8_t* codes = weight_.codes + row * weight_.row_bytes;
    int64_t group = 0;
    if (in_units_ > 0) {
      with_packed_bits(weight_.bits, [&](auto bits) {
        decode_codes<bits>({codes, in_units_, weight_.group_size, scales_.data(), zeros_.data()},
                           type, out);
      });
      if (in_units_ == weight_.in) return;
      group = in_units_ / weight_.group_size;  // all that is left belongs to it
    }
    const int64_t left = weight_.in - in_units_;
    decode_bytes<T>({bytes_of(codes + in_units_ / 8 * weight_.bits, left), left, weight_.group_size,
                     scales_.data() + group, zeros_.data() + group},
                    weight_.group_of, out + in_units_);
  }

 private:
  const uint8_t* bytes_of(const uint8_t* codes, int64_t columns) {
    if (weight_.bits == 8) return codes;
    with_bits(weight_.bits, [&](auto bits) { unpack_row<bits>(codes, columns, bytes_.data()); });
    return bytes_.data();
  }

  const GroupedRows& weight_;
  int64_t in_units_ = 0;  // columns that decode_codes() takes
  std::vector<float> scales_, zeros_;
  std::vector<uint8_t> bytes_;
};

}  // namespace

void widen_scales_and_zeros(const GroupedRows& weight, int64_t first, int64_t rows, float* scales,
                            float* zeros) {
  const int64_t begin = first * weight.groups, count = rows * weight.groups;
#ifdef __x86_64__
  if (has_avx512())
    return simd::avx512::widen_scales_and_zeros(weight, begin, count, scales, zeros);
  if (has_avx2()) return simd::avx2::widen_scales_and_zeros(weight, begin, count, scales, zeros);
#endif
  simd::baseline::widen_scales_and_zeros(weight, begin, count, scales, zeros);
}

QLORA_VECTORIZED bool are_ordinary(const float* scales, const float* zeros, int64_t count) {
  constexpr float kShift = 0x1.8p23f;  // sums with it are whole
  uint32_t others = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t size = std::bit_cast<uint32_t>(scales[i]) & 0x7fffffffu;
    others |= (size != 0) & (size - 0x00800000u >= 0x7f000000u);
    const float zero = zeros[i];
    others |= !(zero <= kMostZero) | !(zero >= -kMostZero) | !(zero + kShift - kShift == zero);
  }
  return others == 0;
}

QLORA_VECTORIZED bool are_short(const float* scales, const float* zeros, int64_t count) {
  constexpr float kShift = 0x1.8p23f;  // sums with it are whole
  constexpr uint32_t kLeast = std::bit_cast<uint32_t>(0x1p-100f),
                     kMost = std::bit_cast<uint32_t>(0x1p100f);
  uint32_t others = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t scale = std::bit_cast<uint32_t>(scales[i]);
    others |= scale & 0xfffu;
    others |= scale - kLeast > kMost - kLeast;
    const float zero = zeros[i];
    others |= !(zero >= 0.0f) | !(zero <= 256.0f) | !(zero + kShift - kShift == zero);
  }
  return others == 0;
}

void pack_codes(const uint8_t* codes, int64_t rows, int64_t in, int bits, int64_t row_bytes,
                uint8_t* packed) {
  with_bits(bits, [&](auto of_bits) {
    for_each_row(0, rows, in, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        pack_row<of_bits>(codes + row * in, in, packed + row * row_bytes);
    });
  });
}

void unpack_codes(const uint8_t* packed, int64_t rows, int64_t in, int bits, int64_t row_bytes,
                  uint8_t* codes) {
  with_bits(bits, [&](auto of_bits) {
    for_each_row(0, rows, in, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row)
        unpack_row<of_bits>(packed + row * row_bytes, in, codes + row * in);
    });
  });
}

void dequantize_grouped(const GroupedDequantizeArguments& a) {
  for_each_row(a.begin, a.end, a.weight.in, [&](int64_t begin, int64_t end) {
    RowDecoder decoder(a.weight);
    std::optional<ScatteredRoom> room;
    if (a.weight.group_of != nullptr) room.emplace(a.weight.groups);
    const int64_t together = room ? room->rows : 1;
    with_element_type(a.type, [&](auto tag) {
      using T = typename decltype(tag)::type;
      for (int64_t first = begin; first < end; first += together) {
        const int64_t count = std::min(together, end - first);
        T* out = static_cast<T*>(a.out) + (first - a.begin) * a.weight.in;
        if (room && decode_scattered(a.weight, first, count, a.type, *room, out)) continue;
        for (int64_t row = 0; row < count; ++row)
          decoder.decode(first + row, a.type, out + row * a.weight.in);
      }
    });
  });
}

}  // namespace qlora::quant::cpu

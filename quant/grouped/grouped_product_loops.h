// The loops of quant/grouped/grouped_product_kernels.h for one instruction set
// (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// A group's codes as floats, kLanes at a time: step number s of a unit of 32 goes with elements
// s * kLanes and on of x as it is laid out.
struct NibbleGroup {
  static constexpr int64_t kBits = 4;
  Table values;

  [[gnu::always_inline]] static NibbleGroup of(float scale, float zero) {
    static constexpr float kCodes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float values[16];
    for (int i = 0; i < 16; i += kLanes)
      store(multiply(subtract(load(kCodes + i), all(zero)), all(scale)), values + i);
    return {table_of(values)};
  }
  [[gnu::always_inline]] Vector weights(const uint8_t* unit, int step) const {
    return look_up(values, nibble_codes(unit, step * (kLanes / 4)));
  }
};

struct ByteGroup {
  static constexpr int64_t kBits = 8;
  Vector scales, zeros;

  [[gnu::always_inline]] static ByteGroup of(float scale, float zero) {
    return {all(scale), all(zero)};
  }
  [[gnu::always_inline]] Vector weights(const uint8_t* unit, int step) const {
    return multiply(subtract(unsigned_bytes(unit + step * kLanes), zeros), scales);
  }
};

// How far ahead codes are asked for: rows that lie one after the other are read side by side, which
// the processor does not take for one stream by itself.
constexpr int64_t kGroupsAhead = 4096;
// Rows of a weight that are summed side by side: an addition need not wait for the one before.
constexpr int kGroupRows = kRegisters == 32 ? 4 : 2;
static_assert(kGroupRows <= quant::cpu::kMostGroupRows);

// kRows rows from `codes` on, with their scales and zeros.
template <typename Group, int kTokens, int kRows>
[[gnu::always_inline]] inline void multiply_group_tile(const quant::GroupedRows& w,
                                                       const uint8_t* codes, const float* scales,
                                                       const float* zeros, const float* x,
                                                       float* sums, int64_t stride) {
  constexpr int64_t kUnit = quant::cpu::kGroupUnit;
  Vector acc[kTokens][kRows];
  for (auto& rows : acc)
    for (Vector& sum : rows) sum = zero();
  int64_t at = 0;
  for (int64_t g = 0; g < w.groups; ++g) {
    Group groups[kRows];
    for (int r = 0; r < kRows; ++r)
      groups[r] = Group::of(scales[r * w.groups + g], zeros[r * w.groups + g]);
    const int64_t end = w.in - at < w.group_size ? w.in : at + w.group_size;
    for (; at < end; at += kUnit) {
      const uint8_t* units = codes + at * Group::kBits / 8;
      for (int r = 0; r < kRows; ++r) __builtin_prefetch(units + r * w.row_bytes + kGroupsAhead);
      for (int step = 0; step < kUnit / kLanes; ++step)
        for (int r = 0; r < kRows; ++r) {
          const Vector weights = groups[r].weights(units + r * w.row_bytes, step);
          for (int t = 0; t < kTokens; ++t)
            acc[t][r] = multiply_add(weights, load(x + t * w.in + at + step * kLanes), acc[t][r]);
        }
    }
  }
  for (int t = 0; t < kTokens; ++t)
    for (int r = 0; r < kRows; ++r) sums[t * stride + r] = sum_of(acc[t][r]);
}

// numbers: room for the scales and zeros of kMostGroupRows rows.
template <typename Group, int kTokens>
void multiply_groups(const quant::GroupedRows& w, const float* x, int64_t begin, int64_t end,
                     float* numbers, float* sums, int64_t stride) {
  float *const scales = numbers, *const zeros = numbers + kGroupRows * w.groups;
  int64_t row = begin;
  for (; row + kGroupRows <= end; row += kGroupRows) {
    quant::cpu::widen_scales_and_zeros(w, row, kGroupRows, scales, zeros);
    multiply_group_tile<Group, kTokens, kGroupRows>(w, w.codes + row * w.row_bytes, scales, zeros,
                                                    x, sums + row - begin, stride);
  }
  for (; row < end; ++row) {
    quant::cpu::widen_scales_and_zeros(w, row, 1, scales, zeros);
    multiply_group_tile<Group, kTokens, 1>(w, w.codes + row * w.row_bytes, scales, zeros, x,
                                           sums + row - begin, stride);
  }
}

template <int kTokens>
void multiply_grouped(const quant::GroupedRows& w, const float* x, int64_t begin, int64_t end,
                      float* numbers, float* sums, int64_t stride) {
  if (w.bits == 4)
    multiply_groups<NibbleGroup, kTokens>(w, x, begin, end, numbers, sums, stride);
  else
    multiply_groups<ByteGroup, kTokens>(w, x, begin, end, numbers, sums, stride);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

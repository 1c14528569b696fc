// The loops of quant/grouped/grouped_decoders.h that every instruction set has alike
// (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// The first `count` codes, of kLanes at most, as floats.
[[gnu::always_inline]] inline Vector first_codes(const uint8_t* from, int64_t count) {
  if (count >= kLanes) return unsigned_bytes(from);
  uint8_t codes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) codes[i] = from[i];
  return unsigned_bytes(codes);
}

// Codes of one group, a byte each.
template <typename T>
[[gnu::always_inline]] inline void decode_group(const uint8_t* codes, int64_t count, float scale,
                                                float zero, T* out) {
  const Vector scales = all(scale), zeros = all(zero);
  for (int64_t i = 0; i < count; i += kLanes)
    store_first(multiply(subtract(first_codes(codes + i, count - i), zeros), scales), out + i,
                count - i);
}

template <typename T>
void decode_bytes(const quant::cpu::GroupedRow& row, T* out) {
  int64_t group = 0;
  for (int64_t first = 0; first < row.columns; first += row.group_size, ++group) {
    const int64_t left = row.columns - first;
    decode_group(row.codes + first, left < row.group_size ? left : row.group_size,
                 row.scales[group], row.zeros[group], out + first);
  }
}

// To elements of 16 bits, with scales and zeros that are ordinary.
template <typename T>
void decode_ordinary_bytes(const quant::cpu::GroupedRow& row, T* out) {
  constexpr int64_t kStep = 2 * kLanes;
  int64_t group = 0;
  for (int64_t first = 0; first < row.columns; first += row.group_size, ++group) {
    const int64_t left = row.columns - first;
    const int64_t end = first + (left < row.group_size ? left : row.group_size);
    const Vector scale = all(row.scales[group]);
    const Vector raised = all(row.zeros[group] + quant::cpu::kRaise);
    int64_t i = first;
    for (; i + kStep <= end; i += kStep) {
      const Vector codes = byte_pairs(row.codes + i);
      const Vector even = multiply(subtract(raised_fields(codes, 0, 8), raised), scale);
      const Vector odd = multiply(subtract(raised_fields(codes, 16, 8), raised), scale);
      store(ordinary_pairs(even, odd, out), reinterpret_cast<float*>(out + i));
    }
    if (i < end) decode_group(row.codes + i, end - i, row.scales[group], row.zeros[group], out + i);
  }
}

// Column i belongs to group_of[i].
template <typename T>
void decode_scattered_bytes(const quant::cpu::GroupedRow& row, const int32_t* group_of, T* out) {
  constexpr int64_t kColumns = 128;  // whose scales are gathered at once
  float scales[kColumns], zeros[kColumns];
  for (int64_t first = 0; first < row.columns; first += kColumns) {
    const int64_t left = row.columns - first, count = left < kColumns ? left : kColumns;
    for (int64_t i = 0; i < count; ++i) {
      scales[i] = row.scales[group_of[first + i]];
      zeros[i] = row.zeros[group_of[first + i]];
    }
    for (int64_t i = 0; i < count; i += kLanes) {
      const Vector codes = first_codes(row.codes + first + i, count - i);
      const Vector differences = subtract(codes, load_first(zeros + i, count - i));
      store_first(multiply(differences, load_first(scales + i, count - i)), out + first + i,
                  count - i);
    }
  }
}

template <typename T>
[[gnu::always_inline]] inline void widen(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_first(load_first(from + i, count - i), to + i, count - i);
}

void widen_bytes(const uint8_t* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes)
    store_first(first_codes(from + i, count - i), to + i, count - i);
}

// Numbers [first, first + count).
void widen_floats(const void* from, quant::ElementType type, int64_t first, int64_t count,
                  float* to) {
  switch (type) {
    case quant::ElementType::kFloat32:
      return widen(static_cast<const float*>(from) + first, count, to);
    case quant::ElementType::kBFloat16:
      return widen(static_cast<const uint16_t*>(from) + first, count, to);
    case quant::ElementType::kFloat16:
      return widen(static_cast<const Float16*>(from) + first, count, to);
  }
}

[[maybe_unused]] void widen_scales_and_zeros(const quant::GroupedRows& w, int64_t first,
                                             int64_t count, float* scales, float* zeros) {
  widen_floats(w.scales, w.scale_type, first, count, scales);
  if (w.byte_zeros != nullptr) return widen_bytes(w.byte_zeros + first, count, zeros);
  if (w.float_zeros != nullptr)
    return widen_floats(w.float_zeros, w.zero_type, first, count, zeros);
  for (int64_t i = 0; i < count; ++i) zeros[i] = w.zero;
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

// The rounding of a row to fp16 by which int8 codes are made, for one instruction set
// (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {
using quant::kLargestHalf;

// Bits of floats; those of magnitudes are in their order.
using Bits [[gnu::vector_size(kLanes * 4)]] = int32_t;

inline Vector as_half(Vector x, bool saturate) {
  if (saturate) {
    x = choose_below(all(kLargestHalf), x, all(kLargestHalf), x);
    x = greater(all(-kLargestHalf), x);
  }
  return rounded_to_float16(x);
}

template <typename T>
bool round_elements(const T* x, const quant::cpu::RoundedRow& row) {
  constexpr int32_t kInfinity = 0x7f800000;
  const Bits limit = Bits{} + row.limit;
  Bits most{}, beyond{};
  for (int64_t i = 0; i < row.count; i += kLanes) {
    const Vector value = as_half(load_first(x + i, row.count - i), row.saturate);
    const Bits bits = (Bits)value, magnitude = bits & 0x7fffffff;
    const Bits outlier = (magnitude >= limit) & (magnitude <= kInfinity);
    const Bits counted = magnitude & ~outlier;
    most = counted > most ? counted : most;
    beyond |= outlier;
    store_first((Vector)(bits & ~outlier), row.rounded + i, row.count - i);
  }
  int32_t largest = 0, any = 0;
  for (int i = 0; i < kLanes; ++i) {
    largest = most[i] > largest ? most[i] : largest;
    any |= beyond[i];
  }
  *row.absmax = std::bit_cast<float>(largest);
  return any != 0;
}

bool round_row(const quant::cpu::RoundedRow& row) {
  switch (row.type) {
    case quant::ElementType::kFloat32:
      return round_elements(static_cast<const float*>(row.x), row);
    case quant::ElementType::kBFloat16:
      return round_elements(static_cast<const uint16_t*>(row.x), row);
    case quant::ElementType::kFloat16:
      return round_elements(static_cast<const Float16*>(row.x), row);
  }
  return false;
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

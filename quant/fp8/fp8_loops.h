// The loops of quant/fp8/fp8_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// Codes that share a scale.
template <typename T>
[[gnu::always_inline]] inline void widen_codes(const uint8_t* codes, Vector scale, int64_t count,
                                               T* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(multiply(e4m3_bytes(codes + i), scale), out + i);
  if (i == count) return;
  uint8_t last[kLanes] = {};
  T values[kLanes];
  for (int64_t j = 0; i + j < count; ++j) last[j] = codes[i + j];
  store(multiply(e4m3_bytes(last), scale), values);
  for (int64_t j = 0; i + j < count; ++j) out[i + j] = values[j];
}

// A row of `in` codes, with a scale for each `block` of them.
template <typename T>
void widen_row(const uint8_t* codes, const float* scales, int64_t in, int64_t block, T* out) {
  for (int64_t first = 0; first < in; first += block, ++scales)
    widen_codes(codes + first, all(*scales), in - first < block ? in - first : block, out + first);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

// What is made of the operations of base/simd/*.h alike for every instruction set. Included by
// base/simd/for_each.h, once in each namespace: no include guard.
namespace qlora::simd::QLORA_SIMD {

// The first `count` elements, of kLanes at most; zeros behind them.
template <typename T>
[[gnu::always_inline]] inline Vector load_first(const T* from, int64_t count) {
  if (count >= kLanes) return load(from);
  T values[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) values[i] = from[i];
  return load(values);
}

template <typename T>
[[gnu::always_inline]] inline void store_first(Vector values, T* to, int64_t count) {
  if (count >= kLanes) return store(values, to);
  T stored[kLanes];
  store(values, stored);
  for (int64_t i = 0; i < count; ++i) to[i] = stored[i];
}

// 2^23 + `bits` bits of words from bit `shift` on, as floats.
inline Vector raised_fields(Vector words, int shift, int bits) {
  return raised_in_place(shift == 0 ? words : shifted_right(words, shift), 0, bits);
}

// 2^x: a polynomial on [-1/2, 1/2], relative error below 2e-7; 0 below -126. x must be at most 127,
// or NaN, which stays one.
inline Vector exp2_of(Vector x) {
  const Vector bounded = greater(all(-126.0f), x);
  const Vector n = floor(add(bounded, all(0.5f)));
  const Vector r = subtract(bounded, n);
  Vector p = all(1.535336188e-4f);
  p = multiply_add(p, r, all(1.339887440e-3f));
  p = multiply_add(p, r, all(9.618437357e-3f));
  p = multiply_add(p, r, all(5.550332548e-2f));
  p = multiply_add(p, r, all(2.402264791e-1f));
  p = multiply_add(p, r, all(6.931472028e-1f));
  p = multiply_add(p, r, all(1.0f));
  return choose_below(x, all(-126.0f), zero(), multiply(p, power_of_two(n)));
}

}  // namespace qlora::simd::QLORA_SIMD

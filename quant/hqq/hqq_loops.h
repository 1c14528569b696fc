// The loops of quant/hqq/hqq_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

[[gnu::always_inline]] inline Vector packed_words(const uint8_t* from) { return byte_words(from); }
[[gnu::always_inline]] inline Vector packed_words(const int32_t* from) {
  return load(reinterpret_cast<const float*>(from));
}

// The fields of `bits` bits from bit `shift` on of kLanes packed numbers.
template <typename Packed>
[[gnu::always_inline]] inline Vector fields_of(const Packed* packed, int shift, int bits) {
  return subtract(raised_fields(packed_words(packed), shift, bits), all(0x1p23f));
}

// Neighbours in a row of the grouped matrix, with a zero and a scale of their own each, or with
// one for all.
template <typename Packed, typename Zero, typename T>
[[gnu::always_inline]] inline void decode(const Packed* packed, int shift, int bits,
                                          const Zero& zeros, const Zero& scales, int64_t count,
                                          T* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    const Vector field = fields_of(packed + i, shift, bits);
    store(multiply(subtract(field, zeros.at(i, kLanes)), scales.at(i, kLanes)), out + i);
  }
  if (i == count) return;
  Packed last[kLanes] = {};
  for (int64_t j = 0; i + j < count; ++j) last[j] = packed[i + j];
  const Vector field = fields_of(last, shift, bits);
  store_first(multiply(subtract(field, zeros.at(i, count - i)), scales.at(i, count - i)), out + i,
              count - i);
}

struct OneForAll {
  Vector value;
  [[gnu::always_inline]] Vector at(int64_t, int64_t) const { return value; }
};
template <typename S>
struct OneEach {
  const S* values;
  [[gnu::always_inline]] Vector at(int64_t i, int64_t count) const {
    return load_first(values + i, count);
  }
};

template <typename Packed, typename S, typename T>
void decode_run(const quant::cpu::HqqRun<Packed>& run, const S* zeros, const S* scales, T* out) {
  if (run.shares_zero)
    return decode(run.packed, run.shift, run.bits, OneForAll{all(qlora::load(*zeros))},
                  OneForAll{all(qlora::load(*scales))}, run.count, out);
  decode(run.packed, run.shift, run.bits, OneEach<S>{zeros}, OneEach<S>{scales}, run.count, out);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

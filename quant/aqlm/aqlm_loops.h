// The loops of quant/aqlm/aqlm_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// A row whose groups of columns are whole vectors.
template <typename Code, typename Entry>
void sum_entries(const quant::cpu::AqlmRow<Code, Entry>& row, float* out) {
  const Vector scale = all(row.scale);
  const Code* codes = row.codes;
  for (int64_t block = 0; block < row.column_blocks;
       ++block, codes += row.num_codebooks, out += row.in_group)
    for (int64_t j = 0; j < row.in_group; j += kLanes) {
      Vector sum = zero();
      const Entry* codebook = row.codebooks + j;
      for (int64_t c = 0; c < row.num_codebooks; ++c, codebook += row.codebook_stride)
        sum = add(sum, load(codebook + (codes[c] & row.mask) * row.entry_stride));
      store(multiply(sum, scale), out + j);
    }
}

template <typename T>
void round_row(const float* values, int64_t count, T* out) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(load(values + i), out + i);
  for (; i < count; ++i) qlora::store(values[i], out[i]);
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

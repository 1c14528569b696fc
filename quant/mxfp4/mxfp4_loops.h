// The loops of quant/mxfp4/mxfp4_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// `blocks` blocks of 16 bytes; `table` holds the 16 numbers.
template <typename T>
void decode_mxfp4_blocks(const uint8_t* packed, const float* scales, int64_t blocks,
                         const float* table, T* out) {
  constexpr int64_t kBlock = quant::kMxfp4Block;
  const Table numbers = table_of(table);
  for (int64_t b = 0; b < blocks; ++b, packed += kBlock / 2, out += kBlock) {
    const Vector scale = all(scales[b]);
    for (int64_t i = 0; i < kBlock; i += kLanes)
      store(multiply(look_up(numbers, nibbles_in_turn(packed + i / 2)), scale), out + i);
  }
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

// The loops of quant/gguf/gguf_mxfp4_cpu.cpp for one instruction set (base/simd/for_each.h).
namespace qlora::simd::QLORA_SIMD {
namespace {

// Byte j of a block's 16 holds element j (low) and element j + 16 (high).
template <typename T>
void decode_gguf_mxfp4(const uint8_t* block, int64_t count, T* out) {
  const Table numbers = table_of(quant::gguf::kDoubledE2m1);
  for (int64_t b = 0; b < count; ++b, block += quant::cpu::kBlockBytes, out += 32) {
    const Vector scale = all(quant::gguf::halved_e8m0(block[0]));
    for (int64_t i = 0; i < 16; i += kLanes) {
      store(multiply(look_up(numbers, low_codes(block + 1 + i)), scale), out + i);
      store(multiply(look_up(numbers, high_codes(block + 1 + i)), scale), out + 16 + i);
    }
  }
}

}  // namespace
}  // namespace qlora::simd::QLORA_SIMD

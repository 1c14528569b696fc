#include "quant/gguf/gguf_mxfp4.h"

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/elements/with_element_type.h"
#include "quant/gguf/gguf_arithmetic.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kBlock = 32, kBlockBytes = 17;
constexpr int64_t kGrain = 1024;  // blocks a thread is worth waking for

}  // namespace
}  // namespace qlora::quant::cpu

#define QLORA_SIMD_LOOPS "quant/gguf/gguf_mxfp4_loops.h"
#include "base/simd/for_each.h"

namespace qlora::quant::cpu {
namespace {

template <typename T>
using DecodeBlocks = void (*)(const uint8_t*, int64_t, T*);

template <typename T>
DecodeBlocks<T> block_kernel() {
#ifdef __x86_64__
  if (has_avx512()) return simd::avx512::decode_gguf_mxfp4<T>;
  if (has_avx2()) return simd::avx2::decode_gguf_mxfp4<T>;
#endif
  return simd::baseline::decode_gguf_mxfp4<T>;
}

template <typename T>
void dequantize_as(const uint8_t* blocks, int64_t count, T* out) {
  const DecodeBlocks<T> decode = block_kernel<T>();
  parallel_for(count, kGrain, [&](int64_t begin, int64_t end) {
    decode(blocks + begin * kBlockBytes, end - begin, out + begin * kBlock);
  });
}

}  // namespace

void dequantize_gguf_mxfp4(const uint8_t* blocks, int64_t count, void* out, ElementType type) {
  with_element_type(type, [&]<typename T>(std::type_identity<T>) {
    dequantize_as(blocks, count, static_cast<T*>(out));
  });
}

}  // namespace qlora::quant::cpu

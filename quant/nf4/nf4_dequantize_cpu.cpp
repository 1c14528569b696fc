// 4-bit dequantization on the CPU of any range of elements: whole blocks by the decoder of the
// instruction set in use, shared out among threads, and what is left of a block at either end by
// itself. The portable decoder is here too.
#include <algorithm>

#include "base/instruction_set.h"
#include "base/parallel_for.h"
#include "quant/elements/element_conversion.h"
#include "quant/nf4/nf4_block_decoders.h"

namespace qlora::quant::cpu {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements a thread is worth waking for

template <typename T>
struct Products {
  T value[kNumFourBitCodes];
  Products(const float* table, float scale) {
    for (int i = 0; i < kNumFourBitCodes; ++i) store(table[i] * scale, value[i]);
  }
};

// Elements [begin, end), all of one block.
template <typename T>
void decode_within_block(const FourBitDequantizeArguments& a, int64_t begin, int64_t end) {
  const Products<T> products(code_table(a.code), block_scale(a.scales, begin / a.block_size));
  T* out = static_cast<T*>(a.out) + (begin - a.begin);
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t byte = a.packed[i / 2];
    *out++ = products.value[i % 2 == 0 ? byte >> 4 : byte & 15];
  }
}

template <typename T>
void decode_whole_blocks(const FourBitDequantizeArguments& a, int64_t first, int64_t last, T* out) {
  const float* table = code_table(a.code);
  for (int64_t b = first; b < last; ++b) {
    const Products<T> products(table, block_scale(a.scales, b));
    const uint8_t* packed = a.packed + b * a.block_size / 2;
    for (int64_t j = 0; j < a.block_size / 2; ++j) {
      *out++ = products.value[packed[j] >> 4];
      *out++ = products.value[packed[j] & 15];
    }
  }
}

void decode_part(const FourBitDequantizeArguments& a, int64_t begin, int64_t end) {
  switch (a.type) {
    case ElementType::kFloat32:
      return decode_within_block<float>(a, begin, end);
    case ElementType::kBFloat16:
      return decode_within_block<BFloat16>(a, begin, end);
    case ElementType::kFloat16:
      return decode_within_block<Float16>(a, begin, end);
  }
}

bool always() { return true; }

constexpr BlockDecoder kDecoders[] = {
#ifdef __x86_64__
    {"avx512", has_avx512, decode_blocks_avx512},
    {"avx2", has_avx2, decode_blocks_avx2},
#endif
    {"portable", always, decode_blocks_portable},
};

}  // namespace

void decode_blocks_portable(const FourBitDequantizeArguments& a, int64_t first, int64_t last,
                            void* out) {
  switch (a.type) {
    case ElementType::kFloat32:
      return decode_whole_blocks(a, first, last, static_cast<float*>(out));
    case ElementType::kBFloat16:
      return decode_whole_blocks(a, first, last, static_cast<BFloat16*>(out));
    case ElementType::kFloat16:
      return decode_whole_blocks(a, first, last, static_cast<Float16*>(out));
  }
}

std::span<const BlockDecoder> block_decoders() { return kDecoders; }

const BlockDecoder& block_decoder() {
  return *std::find_if(std::begin(kDecoders), std::end(kDecoders),
                       [](const BlockDecoder& d) { return d.supported(); });
}

void dequantize_four_bit(const FourBitDequantizeArguments& a) {
  if (a.begin == a.end) return;
  const BlockDecoder& decoder = block_decoder();
  const int64_t size = a.block_size;
  const int64_t first_whole = (a.begin + size - 1) / size, last_whole = a.end / size;
  if (first_whole > last_whole) return decode_part(a, a.begin, a.end);
  if (a.begin < first_whole * size) decode_part(a, a.begin, first_whole * size);
  parallel_for(last_whole - first_whole, std::max<int64_t>(1, kGrain / size),
               [&](int64_t begin, int64_t end) {
                 const int64_t first = first_whole + begin, last = first_whole + end;
                 char* out =
                     static_cast<char*>(a.out) + (first * size - a.begin) * element_size(a.type);
                 decoder.decode(a, first, last, out);
               });
  if (last_whole * size < a.end) decode_part(a, last_whole * size, a.end);
}

}  // namespace qlora::quant::cpu

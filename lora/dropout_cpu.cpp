#include "base/element.h"
#include "base/parallel_for.h"
#include "base/philox.h"
#include "lora/dropout_kernels.h"

namespace qlora::lora::cpu {
namespace {

template <typename T>
void apply(const DropoutArguments& a) {
  const T* in = static_cast<const T*>(a.input);
  T* out = static_cast<T*>(a.output);
  const float scale = 1.0f / (1.0f - a.probability);
  // Blocks of four share a Philox call.
  parallel_for((a.count + 3) / 4, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const PhiloxWords words = philox_words(a.key, static_cast<uint64_t>(block));
      for (int64_t i = block * 4; i < a.count && i < block * 4 + 4; ++i) {
        const float draw = static_cast<float>(words.word[i % 4] >> 8) * 0x1p-24f;
        store(draw >= a.probability ? load(in[i]) * scale : 0.0f, out[i]);
      }
    }
  });
}

}  // namespace

void dropout(const DropoutArguments& arguments) {
  switch (arguments.type) {
    case quant::ElementType::kFloat32:
      return apply<float>(arguments);
    case quant::ElementType::kBFloat16:
      return apply<uint16_t>(arguments);
    case quant::ElementType::kFloat16:
      return apply<Float16>(arguments);
  }
}

}  // namespace qlora::lora::cpu

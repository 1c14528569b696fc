// A weight in groups as GPTQ directories store it (quant/prequantized/gptq.h).
#pragma once

#include "quant/frozen_weight.h"
#include "quant/grouped/grouped.h"

namespace qlora::quant {

// Whether zeros lie in files one lower than they are: checkpoint_format "gptq" (v1), which every
// reader knows, but which cannot hold a zero of 0. "gptq_v2" holds them as they are.
enum class GptqVersion : uint8_t { kZerosLessOne, kZeros };

// The version to write: v1 if the zeros are the same everywhere, as of symmetric weights.
GptqVersion gptq_version(const GroupedTensor& weight);

// "qweight" int32 [words(in), out], "qzeros" int32 [groups, words(out)], "scales" float16
// [groups, out] and "g_idx" int32 [in], words(n) = ceil(n bits / 32). Codes fill the words of a
// column, zeros those of a group, as a little-endian stream of bits; what is left over is zero.
// Error if scales are not float16, or zeros no whole numbers.
NamedTensors gptq_pack(const GroupedTensor& weight);

}  // namespace qlora::quant

#include "quant/gptq/gptq_pack.h"

#include <ATen/ATen.h>

#include "base/error.h"

namespace qlora::quant {
namespace {

// Streams of bits, one a row of bytes, as words: uint8 [n, 4 words] -> int32 [n, words].
at::Tensor as_words(const at::Tensor& bytes) { return bytes.contiguous().view(at::kInt); }

// uint8 [groups, rows].
at::Tensor stored_zeros(const GroupedTensor& weight) {
  if (gptq_version(weight) == GptqVersion::kZeros) return weight.zeros.cpu().t().contiguous();
  return at::full({weight.groups(), weight.rows()}, weight.zero - 1, at::kByte);
}

at::Tensor groups_of_columns(const GroupedTensor& weight) {
  if (weight.group_of.defined()) return weight.group_of.cpu();
  return at::arange(weight.in, at::kLong).div_(weight.group_size, "floor").to(at::kInt);
}

}  // namespace

GptqVersion gptq_version(const GroupedTensor& weight) {
  return weight.zeros.defined() ? GptqVersion::kZeros : GptqVersion::kZerosLessOne;
}

NamedTensors gptq_pack(const GroupedTensor& weight) {
  check(weight.scales.scalar_type() == at::kHalf, "gptq_pack: scales must be float16");
  check(!weight.zeros.defined() || weight.zeros.scalar_type() == at::kByte,
        "gptq_pack: zeros must be whole numbers");
  return {{"qweight", as_words(weight.codes.cpu()).t().contiguous()},
          {"qzeros", as_words(pack_codes(stored_zeros(weight), weight.bits))},
          {"scales", weight.scales.cpu().t().contiguous()},
          {"g_idx", groups_of_columns(weight)}};
}

}  // namespace qlora::quant

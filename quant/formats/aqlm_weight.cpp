#include "quant/formats/aqlm_weight.h"

#include <ATen/ATen.h>

#include <bit>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/aqlm/aqlm_kernels.h"
#include "quant/elements/element_tensor.h"
#include "quant/formats/row_output.h"

namespace qlora::quant {
namespace {

constexpr const char* kOp = "AqlmWeight";

bool lies_on(const at::Tensor& tensor, int64_t dimensions, at::Device device) {
  return tensor.dim() == dimensions && tensor.numel() > 0 && tensor.is_contiguous() &&
         tensor.device() == device;
}

}  // namespace

std::string aqlm_format_name(int64_t num_codebooks, int64_t bits) {
  return fmt::format("aqlm, {}x{}", num_codebooks, bits);
}

AqlmWeight::AqlmWeight(AqlmTensor weight) : weight_(std::move(weight)) {
  const auto& [codes, codebooks, scales] = weight_;
  const at::Device device = codes.device();
  check(lies_on(codes, 3, device) && lies_on(codebooks, 4, device) && lies_on(scales, 1, device),
        "{}: needs contiguous codes [rows, columns, codebooks], codebooks [codebooks, entries, "
        "rows, columns] and scales [rows] on one device",
        kOp);
  const bool wide = codes.scalar_type() == at::kShort;
  check(wide || codes.scalar_type() == at::kChar, "{}: codes must be int8 or int16, got {}", kOp,
        c10::toString(codes.scalar_type()));
  const auto entries = static_cast<uint64_t>(codebooks.size(1));
  check(std::has_single_bit(entries) && entries <= (wide ? 1u << 16 : 1u << 8),
        "{}: a codebook must have a power of two of entries, as many at most as {} codes name; "
        "found {}",
        kOp, wide ? "16-bit" : "8-bit", entries);
  check(codebooks.size(0) == codes.size(2) && scales.numel() == codes.size(0),
        "{}: codes [{}, {}, {}] need as many codebooks and scales as they name, found {} and {}",
        kOp, codes.size(0), codes.size(1), codes.size(2), codebooks.size(0), scales.numel());
  element_type(codebooks, kOp);
  element_type(scales, kOp);
}

std::string AqlmWeight::format() const {
  const auto entries = static_cast<uint64_t>(weight_.codebooks.size(1));
  return aqlm_format_name(weight_.codebooks.size(0), std::countr_zero(entries));
}

int64_t AqlmWeight::bytes() const {
  return static_cast<int64_t>(weight_.codes.nbytes() + weight_.codebooks.nbytes() +
                              weight_.scales.nbytes());
}

void AqlmWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                                 at::Tensor& out) const {
  check_row_output(*this, expert, begin, end, out, kOp);
  const auto& [codes, codebooks, scales] = weight_;
  const AqlmDequantizeArguments arguments{codes.const_data_ptr(),
                                          codes.scalar_type() == at::kShort,
                                          codebooks.const_data_ptr(),
                                          element_type(codebooks, kOp),
                                          scales.const_data_ptr(),
                                          element_type(scales, kOp),
                                          codebooks.size(0),
                                          codebooks.size(1),
                                          codebooks.size(2),
                                          codebooks.size(3),
                                          codes.size(1),
                                          begin,
                                          end,
                                          out.mutable_data_ptr(),
                                          element_type(out, kOp)};
  QLORA_DISPATCH(device(), cpu::dequantize_aqlm(arguments),
                 cuda::dequantize_aqlm(arguments, current_stream(device())));
}

NamedTensors AqlmWeight::state() const {
  return {{"codes", weight_.codes}, {"codebooks", weight_.codebooks}, {"scales", weight_.scales}};
}

}  // namespace qlora::quant

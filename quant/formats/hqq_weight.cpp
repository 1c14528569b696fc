#include "quant/formats/hqq_weight.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/elements/element_tensor.h"
#include "quant/formats/row_output.h"
#include "quant/hqq/hqq_kernels.h"

namespace qlora::quant {
namespace {

constexpr const char* kOp = "HqqWeight";

bool is_one_a_group(const at::Tensor& values, const HqqTensor& weight) {
  return values.is_contiguous() && values.dim() == 1 && values.numel() == weight.groups() &&
         values.device() == weight.packed.device();
}

}  // namespace

int64_t HqqTensor::packed_rows() const {
  const int64_t parts = hqq_parts(bits);
  return (rows() + parts - 1) / parts;
}

int64_t HqqTensor::bytes() const {
  return static_cast<int64_t>(packed.nbytes() + scales.nbytes() + zeros.nbytes());
}

void check_hqq(const HqqTensor& w, const std::string& name) {
  constexpr std::array kBits = {1, 2, 3, 4, 8};
  check(std::ranges::find(kBits, w.bits) != kBits.end() && (w.axis == 0 || w.axis == 1),
        "{}: HQQ has fields of 1, 2, 3, 4 or 8 bits and groups along axis 0 or 1, found {} bits "
        "and axis {}",
        name, w.bits, w.axis);
  check(w.out > 0 && w.in > 0 && w.group_size > 0 && w.out * w.in % w.group_size == 0,
        "{}: [{}, {}] must be whole groups of {}", name, w.out, w.in, w.group_size);
  check(w.bits == 3 || w.rows() % hqq_parts(w.bits) == 0,
        "{}: {} rows of the grouped matrix are not {} equal parts", name, w.rows(),
        hqq_parts(w.bits));
  const at::ScalarType type = w.bits == 3 ? at::kInt : at::kByte;
  check(w.packed.dim() == 2 && w.packed.is_contiguous() && w.packed.scalar_type() == type &&
            w.packed.size(0) == w.packed_rows() && w.packed.size(1) == w.columns(),
        "{}: the packed codes must be contiguous {} [{}, {}]", name, c10::toString(type),
        w.packed_rows(), w.columns());
  check(is_one_a_group(w.scales, w) && is_one_a_group(w.zeros, w) &&
            w.scales.scalar_type() == w.zeros.scalar_type(),
        "{}: scales and zeros must be of one type, and {} each", name, w.groups());
  element_type(w.scales, kOp);
}

at::Tensor hqq_codes(const HqqTensor& w) {
  const int parts = hqq_parts(w.bits);
  std::vector<at::Tensor> rows;
  for (int part = 0; part < parts; ++part)
    rows.push_back(w.packed.bitwise_right_shift(w.bits * (parts - 1 - part))
                       .bitwise_and((1 << w.bits) - 1)
                       .to(at::kByte));
  return at::cat(rows).narrow(0, 0, w.rows()).reshape({w.out, w.in});
}

HqqWeight::HqqWeight(HqqTensor weight, std::string format)
    : weight_(std::move(weight)), format_(std::move(format)) {
  check_hqq(weight_, kOp);
}

void HqqWeight::dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const {
  check_row_output(*this, expert, begin, end, out, kOp);
  const HqqDequantizeArguments arguments{weight_.packed.const_data_ptr(),
                                         weight_.bits,
                                         weight_.packed.size(0),
                                         weight_.packed.size(1),
                                         weight_.scales.const_data_ptr(),
                                         weight_.zeros.const_data_ptr(),
                                         element_type(weight_.scales, kOp),
                                         weight_.axis == 1,
                                         begin * weight_.in,
                                         end * weight_.in,
                                         out.mutable_data_ptr(),
                                         element_type(out, kOp)};
  QLORA_DISPATCH(device(), cpu::dequantize_hqq(arguments),
                 cuda::dequantize_hqq(arguments, current_stream(device())));
}

NamedTensors HqqWeight::state() const {
  return {{"W_q", weight_.packed}, {"scale", weight_.scales}, {"zero", weight_.zeros}};
}

}  // namespace qlora::quant

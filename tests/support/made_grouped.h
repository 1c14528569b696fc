// Grouped weights (quant/grouped/grouped.h) of random codes, scales and zeros in every form.
#pragma once

#include <ATen/ATen.h>

#include "quant/grouped/grouped.h"

namespace qlora::test {

enum class Zeros { kOne, kBytes, kFloats };  // one for all groups; or one a group

struct Form {
  int bits;
  int64_t rows, in, group_size;
  Zeros zeros = Zeros::kBytes;
  at::ScalarType type = at::kHalf;  // of scales, and of zeros that are no bytes
  bool scattered = false;           // a group named for each column
};

struct Made {
  at::Tensor codes;  // a byte each
  quant::GroupedTensor weight;
};

inline Made made(const Form& form, uint64_t seed = 1) {
  at::manual_seed(seed);
  const int64_t groups = (form.in - 1) / form.group_size + 1;
  const int64_t codes = int64_t{1} << form.bits;
  Made made{at::randint(0, codes, {form.rows, form.in}, at::kByte), {}};
  quant::GroupedTensor& weight = made.weight;
  weight.bits = form.bits;
  weight.in = form.in;
  weight.group_size = form.group_size;
  weight.codes = quant::pack_codes(made.codes, form.bits);
  weight.scales = ((at::rand({form.rows, groups}) + 0.1) * 0.01).to(form.type);
  weight.zero = static_cast<float>(codes) / 2;
  if (form.zeros == Zeros::kBytes)
    weight.zeros = at::randint(0, codes, {form.rows, groups}, at::kByte);
  if (form.zeros == Zeros::kFloats)
    weight.zeros = (at::rand({form.rows, groups}) * static_cast<double>(codes)).to(form.type);
  if (form.scattered) weight.group_of = at::randint(0, groups, {form.in}, at::kInt);
  return made;
}

inline at::Tensor rows_of(const quant::GroupedTensor& weight, at::ScalarType type = at::kFloat) {
  at::Tensor out = at::empty({weight.rows(), weight.in}, weight.codes.options().dtype(type));
  quant::dequantize_grouped(weight, 0, weight.rows(), out);
  return out;
}

// (code - zero) * scale in float32, one by one.
inline at::Tensor defined_rows(const at::Tensor& codes, const quant::GroupedTensor& weight) {
  const int64_t rows = codes.size(0), in = codes.size(1), groups = weight.groups();
  const at::Tensor scales = weight.scales.to(at::kFloat);
  const at::Tensor zeros =
      weight.zeros.defined() ? weight.zeros.to(at::kFloat) : at::full({rows, groups}, weight.zero);
  at::Tensor out = at::empty({rows, in}, at::kFloat);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < in; ++i) {
      const int64_t group = weight.group_of.defined() ? weight.group_of.const_data_ptr<int32_t>()[i]
                                                      : i / weight.group_size;
      const auto code = static_cast<float>(codes.const_data_ptr<uint8_t>()[r * in + i]);
      const float difference = code - zeros.const_data_ptr<float>()[r * groups + group];
      out.mutable_data_ptr<float>()[r * in + i] =
          difference * scales.const_data_ptr<float>()[r * groups + group];
    }
  return out;
}

}  // namespace qlora::test

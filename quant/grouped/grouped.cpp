#include "quant/grouped/grouped.h"

#include <ATen/ATen.h>

#include <limits>

#include "base/device.h"
#include "base/dispatch.h"
#include "base/error.h"
#include "quant/elements/element_tensor.h"
#include "quant/grouped/grouped_kernels.h"
#include "quant/grouped/grouped_product_kernels.h"

namespace qlora::quant {
namespace {

void check_bits(int bits, const std::string& name) {
  check(bits == 1 || bits == 2 || bits == 3 || bits == 4 || bits == 8,
        "{}: codes have 1, 2, 3, 4 or 8 bits, got {}", name, bits);
}

bool is_floating(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

void check_numbers(const at::Tensor& numbers, const char* part, const at::Tensor& codes,
                   int64_t groups, bool may_be_bytes, const std::string& name) {
  check(numbers.defined() && numbers.dim() == 2 && numbers.size(0) == codes.size(0) &&
            numbers.size(1) == groups,
        "{}: {} must be [{} rows, {} groups]", name, part, codes.size(0), groups);
  check(is_floating(numbers.scalar_type()) || (may_be_bytes && numbers.scalar_type() == at::kByte),
        "{}: {} must be float16, bfloat16{} got {}", name, part,
        may_be_bytes ? ", float32 or uint8," : " or float32,",
        c10::toString(numbers.scalar_type()));
  check(numbers.is_contiguous() && numbers.device() == codes.device(),
        "{}: {} must be contiguous, on {}", name, part, codes.device().str());
}

void check_group_of(const GroupedTensor& weight, const std::string& name) {
  const at::Tensor& group_of = weight.group_of;
  check(group_of.scalar_type() == at::kInt && group_of.dim() == 1 &&
            group_of.size(0) == weight.in && group_of.is_contiguous() &&
            group_of.device() == weight.codes.device(),
        "{}: group_of must be int32 [{} columns], contiguous, on {}", name, weight.in,
        weight.codes.device().str());
}

// All that costs no look at the parts' numbers.
void check_parts(const GroupedTensor& weight, const std::string& name) {
  check_bits(weight.bits, name);
  check(weight.in > 0 && weight.in <= std::numeric_limits<int32_t>::max(),
        "{}: there must be 1 to 2^31 - 1 columns, got {}", name, weight.in);
  const at::Tensor& codes = weight.codes;
  const int64_t row_bytes = grouped_row_bytes(weight.bits, weight.in);
  check(codes.defined() && codes.scalar_type() == at::kByte && codes.dim() == 2 &&
            codes.size(0) > 0 && codes.size(1) == row_bytes && codes.is_contiguous(),
        "{}: codes must be uint8 [rows, {} bytes for {} columns of {} bits], contiguous", name,
        row_bytes, weight.in, weight.bits);
  check(weight.scales.defined() && weight.scales.dim() == 2 && weight.scales.size(1) > 0,
        "{}: scales must be [rows, groups]", name);
  int64_t groups = weight.groups();
  if (weight.group_of.defined()) {
    check_group_of(weight, name);
  } else {
    check(weight.group_size > 0, "{}: a group must have columns, got {}", name, weight.group_size);
    groups = (weight.in - 1) / weight.group_size + 1;
  }
  check_numbers(weight.scales, "scales", codes, groups, false, name);
  if (weight.zeros.defined()) check_numbers(weight.zeros, "zeros", codes, groups, true, name);
}

GroupedRows rows_of(const GroupedTensor& weight) {
  GroupedRows rows{};
  rows.bits = weight.bits;
  rows.rows = weight.rows();
  rows.in = weight.in;
  rows.groups = weight.groups();
  // A single group may end anywhere; with whole units it is the kernels' fast case.
  rows.group_size = rows.groups == 1 ? (weight.in + 31) / 32 * 32 : weight.group_size;
  rows.row_bytes = weight.codes.size(1);
  rows.codes = weight.codes.const_data_ptr<uint8_t>();
  rows.scales = weight.scales.const_data_ptr();
  rows.scale_type = element_type(weight.scales, "grouped weight");
  rows.zero = weight.zero;
  if (weight.zeros.defined() && weight.zeros.scalar_type() == at::kByte) {
    rows.byte_zeros = weight.zeros.const_data_ptr<uint8_t>();
  } else if (weight.zeros.defined()) {
    rows.float_zeros = weight.zeros.const_data_ptr();
    rows.zero_type = element_type(weight.zeros, "grouped weight");
  }
  if (weight.group_of.defined() && rows.groups > 1)
    rows.group_of = weight.group_of.const_data_ptr<int32_t>();
  return rows;
}

class GroupedRowsProduct final : public RowsProduct {
 public:
  GroupedRowsProduct(const GroupedRows& weight, const at::Tensor& x)
      : weight_(weight), x_(at::empty(x.sizes(), x.options().dtype(at::kFloat))) {
    const at::Tensor from = x.to(at::kFloat).contiguous();
    for (int64_t t = 0; t < x.size(0); ++t)
      cpu::lay_out_for_groups(weight, from.const_data_ptr<float>() + t * weight.in,
                              x_.mutable_data_ptr<float>() + t * weight.in);
  }

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    cpu::multiply_grouped_rows(weight_, x_.const_data_ptr<float>(), x_.size(0), begin, end, sums,
                               stride);
  }

 private:
  GroupedRows weight_;
  at::Tensor x_;  // laid out
};

}  // namespace

int64_t GroupedTensor::bytes() const {
  size_t total = codes.nbytes() + scales.nbytes();
  if (zeros.defined()) total += zeros.nbytes();
  if (group_of.defined()) total += group_of.nbytes();
  return static_cast<int64_t>(total);
}

int64_t grouped_row_bytes(int bits, int64_t in) { return (in * bits + 31) / 32 * 4; }

void check_grouped(const GroupedTensor& weight, const std::string& name) {
  check_parts(weight, name);
  if (!weight.group_of.defined()) return;
  const auto least = weight.group_of.min().item<int32_t>();
  const auto most = weight.group_of.max().item<int32_t>();
  check(least >= 0 && most < weight.groups(),
        "{}: group_of must name groups in [0, {}), got numbers from {} to {}", name,
        weight.groups(), least, most);
}

at::Tensor pack_codes(const at::Tensor& codes, int bits) {
  constexpr const char* kOp = "pack_codes";
  check_bits(bits, kOp);
  check(codes.is_cpu() && codes.scalar_type() == at::kByte && codes.dim() == 2 &&
            codes.is_contiguous(),
        "{}: codes must be uint8 [rows, columns], contiguous, on the CPU", kOp);
  const int64_t rows = codes.size(0), in = codes.size(1);
  at::Tensor packed = at::zeros({rows, grouped_row_bytes(bits, in)}, at::kByte);
  if (codes.numel() == 0) return packed;
  const auto most = static_cast<int>(codes.max().item<uint8_t>());
  check(most < 1 << bits, "{}: codes of {} bits must be below {}, got {}", kOp, bits, 1 << bits,
        most);
  cpu::pack_codes(codes.const_data_ptr<uint8_t>(), rows, in, bits, packed.size(1),
                  packed.mutable_data_ptr<uint8_t>());
  return packed;
}

at::Tensor unpack_codes(const at::Tensor& packed, int bits, int64_t in) {
  constexpr const char* kOp = "unpack_codes";
  check_bits(bits, kOp);
  check(packed.is_cpu() && packed.scalar_type() == at::kByte && packed.dim() == 2 &&
            packed.is_contiguous() && in >= 0 && packed.size(1) == grouped_row_bytes(bits, in),
        "{}: packed codes must be uint8 [rows, {} bytes for {} columns], contiguous, on the CPU",
        kOp, grouped_row_bytes(bits, in), in);
  at::Tensor codes = at::empty({packed.size(0), in}, at::kByte);
  if (codes.numel() == 0) return codes;
  cpu::unpack_codes(packed.const_data_ptr<uint8_t>(), packed.size(0), in, bits, packed.size(1),
                    codes.mutable_data_ptr<uint8_t>());
  return codes;
}

void dequantize_grouped(const GroupedTensor& weight, int64_t begin, int64_t end, at::Tensor& out) {
  constexpr const char* kOp = "dequantize_grouped";
  check_parts(weight, kOp);
  check(0 <= begin && begin <= end && end <= weight.rows(), "{}: rows [{}, {}) must lie in [0, {})",
        kOp, begin, end, weight.rows());
  const at::Device device = weight.codes.device();
  check(out.is_contiguous() && out.device() == device && out.numel() == (end - begin) * weight.in,
        "{}: out must be contiguous, on {} and hold {} elements, got {}", kOp, device.str(),
        (end - begin) * weight.in, out.numel());
  const GroupedDequantizeArguments arguments{rows_of(weight), begin, end, out.mutable_data_ptr(),
                                             element_type(out, kOp)};
  QLORA_DISPATCH(device, cpu::dequantize_grouped(arguments),
                 cuda::dequantize_grouped(arguments, current_stream(device)));
}

std::unique_ptr<RowsProduct> grouped_rows_product(const GroupedTensor& weight,
                                                  const at::Tensor& x) {
  constexpr const char* kOp = "grouped_rows_product";
  check_parts(weight, kOp);
  check(x.is_cpu() && weight.codes.is_cpu() && x.dim() == 2 && x.size(1) == weight.in,
        "{}: x must be [tokens, {}] and on the CPU with the weight", kOp, weight.in);
  const GroupedRows rows = rows_of(weight);
  if (!cpu::has_grouped_product(rows)) return nullptr;
  return std::make_unique<GroupedRowsProduct>(rows, x);
}

}  // namespace qlora::quant

#include "quant/nf4/nf4.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>

#include "base/device.h"
#include "base/dispatch.h"
#include "quant/elements/element_tensor.h"
#include "quant/nf4/nf4_kernels.h"
#include "quant/nf4/nf4_product_kernels.h"

namespace qlora::quant {
namespace {

const float* table_of(FourBitCode code) {
  return code == FourBitCode::kNf4 ? kNf4Table : kFp4Table;
}

void check_block_size(int64_t size, const char* op) {
  check(size >= 32 && size <= 4096 && std::has_single_bit(static_cast<uint64_t>(size)),
        "{}: block_size must be a power of two from 32 to 4096, got {}", op, size);
}

FourBitScales scale_pointers(const FourBitTensor& q) {
  if (!q.scales) return {q.absmax.const_data_ptr<float>(), nullptr, nullptr, nullptr, nullptr, 0};
  return {nullptr,
          q.scales->codes.const_data_ptr<uint8_t>(),
          q.scales->nested_absmax.const_data_ptr<float>(),
          q.scales->map.const_data_ptr<float>(),
          q.scales->offset.const_data_ptr<float>(),
          std::countr_zero(static_cast<uint64_t>(q.scales->block_size))};
}

ElementType element_type_of(at::ScalarType dtype) {
  if (dtype == at::kFloat) return ElementType::kFloat32;
  return dtype == at::kBFloat16 ? ElementType::kBFloat16 : ElementType::kFloat16;
}

class FourBitRowsProduct final : public RowsProduct {
 public:
  FourBitRowsProduct(const FourBitTensor& q, int64_t first_row, ElementType rounding,
                     const at::Tensor& x)
      : kernel_(cpu::four_bit_product(element_type(x, "four_bit_rows_product"), rounding)),
        tokens_(x.size(0)),
        in_(x.size(1)),
        rows_{q.packed.const_data_ptr<uint8_t>() + first_row * in_ / 2,
              scale_pointers(q),
              q.layout.code,
              q.layout.block_size,
              in_,
              first_row * in_ / q.layout.block_size,
              rounding} {
    const bool narrow = kernel_.type == ElementType::kBFloat16;
    const at::ScalarType dtype = narrow ? at::kBFloat16 : at::kFloat;
    const at::Tensor from = (x.scalar_type() == dtype ? x : x.to(dtype)).contiguous();
    const int64_t bytes = in_ * element_size(kernel_.type);
    x_ = at::empty({tokens_, bytes}, at::kByte);
    auto* to = x_.mutable_data_ptr<uint8_t>();
    for (int64_t t = 0; t < tokens_; ++t)
      kernel_.lay_out(static_cast<const char*>(from.const_data_ptr()) + t * bytes, in_,
                      to + t * bytes);
  }

  void sums(int64_t begin, int64_t end, float* sums, int64_t stride) const override {
    kernel_.multiply(rows_, x_.const_data_ptr(), tokens_, begin, end, sums, stride);
  }

 private:
  const cpu::FourBitProduct& kernel_;
  int64_t tokens_, in_;
  cpu::FourBitRows rows_;
  at::Tensor x_;  // laid out; ATen aligns it to cache lines
};

}  // namespace

int64_t FourBitTensor::bytes() const {
  const auto total = [](const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); };
  if (!scales) return total(packed) + total(absmax);
  return total(packed) + total(scales->codes) + total(scales->nested_absmax) +
         total(scales->offset) + total(scales->map);
}

at::Tensor four_bit_table(FourBitCode code) {
  at::Tensor result = at::empty({kNumFourBitCodes}, at::kFloat);
  std::copy_n(table_of(code), kNumFourBitCodes, result.mutable_data_ptr<float>());
  return result;
}

std::optional<FourBitCode> four_bit_code(const at::Tensor& quant_map) {
  if (quant_map.scalar_type() != at::kFloat || quant_map.numel() != kNumFourBitCodes)
    return std::nullopt;
  const at::Tensor map = quant_map.cpu().contiguous();
  for (const FourBitCode code : {FourBitCode::kNf4, FourBitCode::kFp4})
    if (std::equal(table_of(code), table_of(code) + kNumFourBitCodes, map.const_data_ptr<float>()))
      return code;
  return std::nullopt;
}

FourBitTensor quantize_four_bit(const at::Tensor& weight, FourBitLayout layout, bool double_quant,
                                const std::string& name) {
  constexpr const char* kOp = "quantize_four_bit";
  check_block_size(layout.block_size, kOp);
  check(weight.is_contiguous() && weight.numel() > 0,
        "{}: {} must be contiguous and hold at least one element", kOp, name);
  FourBitTensor result;
  result.layout = layout;
  result.num_elements = weight.numel();
  result.packed = at::empty({(result.num_elements + 1) / 2}, weight.options().dtype(at::kByte));
  result.absmax = at::empty({result.num_blocks()}, weight.options().dtype(at::kFloat));
  const FourBitQuantizeArguments arguments{weight.const_data_ptr(),
                                           element_type(weight, kOp),
                                           layout.code,
                                           result.num_elements,
                                           layout.block_size,
                                           result.packed.mutable_data_ptr<uint8_t>(),
                                           result.absmax.mutable_data_ptr<float>()};
  QLORA_DISPATCH(weight.device(), cpu::quantize_four_bit(arguments),
                 cuda::quantize_four_bit(arguments, current_stream(weight.device())));
  check_finite_blocks(result.absmax, weight, kOp, name);
  if (double_quant) {
    result.scales = double_quantize(result.absmax);
    result.absmax.reset();
  }
  return result;
}

void check_four_bit(const FourBitTensor& q) {
  constexpr const char* kOp = "4-bit weight";
  check_block_size(q.layout.block_size, kOp);
  check(q.num_elements > 0 && q.packed.defined() && q.packed.scalar_type() == at::kByte &&
            q.packed.is_contiguous() && q.packed.numel() == q.num_elements / 2 + q.num_elements % 2,
        "{}: {} elements need half as many contiguous uint8 bytes", kOp, q.num_elements);
  if (q.scales) return check_double_quantized(*q.scales, q.num_blocks(), q.packed.device());
  check(q.absmax.defined() && q.absmax.scalar_type() == at::kFloat && q.absmax.is_contiguous() &&
            q.absmax.device() == q.packed.device() && q.absmax.numel() == q.num_blocks(),
        "{}: {} elements in blocks of {} need {} float32 scales on {}", kOp, q.num_elements,
        q.layout.block_size, q.num_blocks(), q.packed.device().str());
}

std::unique_ptr<RowsProduct> four_bit_rows_product(const FourBitTensor& q, int64_t first_row,
                                                   at::ScalarType rounding, const at::Tensor& x) {
  check(x.is_cpu() && x.size(1) % q.layout.block_size == 0,
        "four_bit_rows_product: needs x on the CPU and rows of whole blocks of {}, got {} on {}",
        q.layout.block_size, x.size(1), x.device().str());
  return std::make_unique<FourBitRowsProduct>(q, first_row, element_type_of(rounding), x);
}

void dequantize_range(const FourBitTensor& q, int64_t begin, int64_t end, at::Tensor& out) {
  constexpr const char* kOp = "dequantize_range";
  check_four_bit(q);
  check(0 <= begin && begin <= end && end <= q.num_elements,
        "{}: range [{}, {}) must lie in [0, {})", kOp, begin, end, q.num_elements);
  check(out.is_contiguous() && out.device() == q.packed.device() && out.numel() == end - begin,
        "{}: out must be contiguous, on {} and hold {} elements, got {}", kOp,
        q.packed.device().str(), end - begin, out.numel());
  const FourBitDequantizeArguments arguments{q.packed.const_data_ptr<uint8_t>(),
                                             scale_pointers(q),
                                             q.layout.code,
                                             q.layout.block_size,
                                             begin,
                                             end,
                                             out.mutable_data_ptr(),
                                             element_type(out, kOp)};
  QLORA_DISPATCH(out.device(), cpu::dequantize_four_bit(arguments),
                 cuda::dequantize_four_bit(arguments, current_stream(out.device())));
}

}  // namespace qlora::quant

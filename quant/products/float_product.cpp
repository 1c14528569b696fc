#include "quant/products/float_product.h"

#include "base/error.h"
#include "quant/elements/element_tensor.h"

namespace qlora::quant {
namespace {

constexpr const char* kOp = "multiply";

// A dimension of one element has whatever stride serves.
cpu::FloatFactor factor(const at::Tensor& t) {
  check(t.dim() == 2 && (t.stride(0) == 1 || t.stride(1) == 1 || t.size(0) == 1 || t.size(1) == 1),
        "{}: a factor lies in neither order", kOp);
  const bool by_rows = t.stride(1) == 1 || t.size(1) == 1;
  return {t.const_data_ptr(), element_type(t, kOp), by_rows ? t.stride(0) : 1,
          by_rows ? 1 : t.stride(1)};
}

}  // namespace

cpu::FloatTerm float_term(const at::Tensor& a, const at::Tensor& b, double scale) {
  check(a.size(1) == b.size(0), "{}: [{}, {}] and [{}, {}] do not fit", kOp, a.size(0), a.size(1),
        b.size(0), b.size(1));
  return {factor(a), factor(b), a.size(1), static_cast<float>(scale)};
}

cpu::FloatProduct float_product_to(const at::Tensor& out, bool accumulate, const at::Tensor& onto) {
  check(!onto.defined() || (onto.sizes() == out.sizes() && onto.strides() == out.strides() &&
                            onto.scalar_type() == at::kFloat),
        "{}: the output does not fit what it is added to", kOp);
  const cpu::FloatFactor place = factor(out);
  return {.terms = {},
          .num_terms = 0,
          .out = out.mutable_data_ptr(),
          .type = place.type,
          .row_stride = place.row_stride,
          .column_stride = place.column_stride,
          .columns = out.size(1),
          .accumulate = accumulate,
          .onto = onto.defined() ? onto.const_data_ptr<float>() : nullptr,
          .codes = {}};
}

}  // namespace qlora::quant

#include "quant/formats/row_output.h"

#include "base/error.h"

namespace qlora::quant {

void check_row_output(const FrozenWeight& weight, int64_t expert, int64_t begin, int64_t end,
                      const at::Tensor& out, const char* op) {
  const WeightShape shape{weight.num_experts(), weight.out_features(), weight.in_features(), false};
  shape.first_row(expert, begin, end, op);
  const int64_t elements = (end - begin) * shape.in;
  check(out.is_contiguous() && out.numel() == elements && out.device() == weight.device(),
        "{}: the output must be contiguous, on {} and hold {} elements", op, weight.device().str(),
        elements);
}

}  // namespace qlora::quant

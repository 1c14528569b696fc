#include "base/compare_rows.h"

#include <ATen/ATen.h>

namespace qlora {

bool are_equal(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && all_rows(a.size(0), [&](int64_t first, int64_t count) {
           return at::equal(a.narrow(0, first, count).to(at::kFloat),
                            b.narrow(0, first, count).to(at::kFloat));
         });
}

}  // namespace qlora

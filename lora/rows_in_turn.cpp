#include "lora/rows_in_turn.h"

#include <ATen/ATen.h>

namespace qlora::lora {

at::Tensor rows_in_turn(const at::Tensor& halves) {
  return at::stack(halves.chunk(2), 1).flatten(0, 1);
}

at::Tensor rows_in_halves(const at::Tensor& turns) {
  const auto every_other = [&](int64_t first) { return turns.slice(0, first, std::nullopt, 2); };
  return at::cat({every_other(0), every_other(1)});
}

}  // namespace qlora::lora

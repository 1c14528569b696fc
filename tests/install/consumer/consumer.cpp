// The smallest program on top of the installed package: headers by folder, libraries by layer,
// LibTorch behind them.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstdlib>

#include "base/seed.h"
#include "base/short_waits.h"
#include "recipes/recipe.h"

QLORA_SHORT_WAITS

int main() {
  const qlora::recipes::Recipe recipe;
  const at::Tensor ones = at::ones({recipe.lora.rank, 2});
  const bool short_waits = std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY");
  const bool works = ones.sum().item<int64_t>() == 2 * recipe.lora.rank &&
                     qlora::random_key(42, "a") != 0 && short_waits;
  fmt::print("rank {} by default; the package {}\n", recipe.lora.rank,
             works ? "works" : "is broken");
  return works ? 0 : 1;
}

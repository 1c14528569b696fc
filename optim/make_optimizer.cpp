#include <utility>

#include "optim/fused_optimizer.h"
#include "optim/optimizer.h"

namespace qlora::optim {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          std::vector<Parameter> parameters) {
  return std::make_unique<FusedOptimizer>(options, std::move(parameters));
}

}  // namespace qlora::optim

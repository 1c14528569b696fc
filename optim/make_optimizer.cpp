#include <utility>

#include "optim/adamw.h"
#include "optim/optimizer.h"

namespace qlora::optim {

std::unique_ptr<Optimizer> make_optimizer(const OptimizerOptions& options,
                                          std::vector<Parameter> parameters) {
  return std::make_unique<AdamW>(options, std::move(parameters));
}

}  // namespace qlora::optim

#include "trainer/product_rate.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <limits>

#include "base/device.h"
#include "base/stopwatch.h"
#include "lora/linear_group.h"
#include "quant/make_frozen_weight.h"

namespace qlora::trainer {

double product_rate(const quant::QuantizationOptions& quantization, at::ScalarType compute,
                    c10::Device device) {
  constexpr int64_t kTokens = 64, kSize = 512;
  constexpr double kOperations = 2.0 * kTokens * kSize * kSize, kSeconds = 0.02;
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
  // Of many values, so that no format finds a special case.
  const at::Tensor numbers = at::linspace(-0.1, 0.1, kSize * kSize, options).view({kSize, kSize});
  lora::LoraLinear layer;
  layer.name = "measured";
  layer.base = quant::make_frozen_weight(numbers.to(at::kBFloat16), quantization, layer.name);
  std::vector<lora::LoraLinear> layers;
  layers.push_back(std::move(layer));
  const lora::LinearGroup group(std::move(layers));
  const at::Tensor x = numbers.narrow(0, 0, kTokens).to(compute);
  quant::Workspace workspace;
  lora::ForwardContext context;
  context.workspace = &workspace;
  const auto product = [&] {
    const Stopwatch watch;
    group.forward(x, context);
    synchronize(device);
    return watch.seconds();
  };
  const Stopwatch watch;
  double least = product();  // the first one sizes buffers
  do least = std::min(least, product());
  while (watch.seconds() < kSeconds);
  return kOperations / std::max(least, std::numeric_limits<double>::min());
}

}  // namespace qlora::trainer

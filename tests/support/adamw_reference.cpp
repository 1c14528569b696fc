#include "tests/support/adamw_reference.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "quant/blockwise8/dynamic_map.h"

namespace qlora::test {
namespace {

// bitsandbytes' CPU encoder: x is put into one of 65,536 bins over [-1, 1], and the bin's middle
// takes the nearest code.
uint8_t encode(const quant::DynamicMap& map, float x) {
  const int bin = static_cast<int>(std::fma((x + 1.0f) * 0.5f, 65535.0f, 0.5f));
  const float middle = -1.0f + 2.0f * static_cast<float>(bin) / 65535.0f;
  int code = 0;
  while (code < 255 && 0.5f * (map[code] + map[code + 1]) < middle) ++code;
  return static_cast<uint8_t>(code);
}

float encode_block(const quant::DynamicMap& map, const std::vector<float>& values, uint8_t* codes) {
  float absmax = 0;
  for (const float x : values) absmax = std::max(absmax, std::fabs(x));
  const float inverse = 1.0f / absmax;
  for (size_t i = 0; i < values.size(); ++i)
    codes[i] = absmax == 0 ? 0 : encode(map, values[i] * inverse);
  return absmax;
}

}  // namespace

AdamwReference::AdamwReference(const optim::OptimizerOptions& options, std::vector<float> initial,
                               bool eight_bit)
    : options(options), eight_bit(eight_bit), value(std::move(initial)) {
  const size_t count = value.size(), blocks = (count + 255) / 256;
  m.assign(eight_bit ? 0 : count, 0);
  v = m;
  codes1.assign(eight_bit ? count : 0, 0);
  codes2 = codes1;
  absmax1.assign(eight_bit ? blocks : 0, 0);
  absmax2 = absmax1;
}

void AdamwReference::step(double lr, double gradient_scale, const std::vector<float>& gradient) {
  ++num_steps;
  const auto scale = static_cast<float>(gradient_scale);
  eight_bit ? step_8bit(lr, scale, gradient) : step_32bit(lr, scale, gradient);
}

void AdamwReference::step_32bit(double lr, float scale, const std::vector<float>& gradient) {
  const double c1 = 1 - std::pow(options.betas_in_use()[0], num_steps),
               c2 = std::sqrt(1 - std::pow(options.betas_in_use()[1], num_steps));
  const auto beta1 = static_cast<float>(options.betas_in_use()[0]),
             rest1 = static_cast<float>(1 - options.betas_in_use()[0]);
  const auto beta2 = static_cast<float>(options.betas_in_use()[1]),
             rest2 = static_cast<float>(1 - options.betas_in_use()[1]);
  for (size_t i = 0; i < value.size(); ++i) {
    const float g = gradient[i] * scale;
    m[i] = std::fma(g, rest1, m[i] * beta1);
    v[i] = std::fma(rest2 * g, g, v[i] * beta2);
    const float direction = m[i] / (std::sqrt(v[i]) + static_cast<float>(options.eps * c2));
    value[i] = std::fma(direction, static_cast<float>(-lr * c2 / c1),
                        value[i] * static_cast<float>(1 - lr * options.weight_decay));
  }
}

void AdamwReference::step_8bit(double lr, float scale, const std::vector<float>& gradient) {
  const double c1 = 1 - std::pow(options.betas_in_use()[0], num_steps),
               c2 = std::sqrt(1 - std::pow(options.betas_in_use()[1], num_steps));
  const auto beta1 = static_cast<float>(options.betas_in_use()[0]),
             rest1 = static_cast<float>(1 - options.betas_in_use()[0]);
  const auto beta2 = static_cast<float>(options.betas_in_use()[1]),
             rest2 = static_cast<float>(1 - options.betas_in_use()[1]);
  const quant::DynamicMap& map1 = quant::signed_dynamic_map();
  const quant::DynamicMap& map2 = quant::unsigned_dynamic_map();
  for (size_t begin = 0, block = 0; begin < value.size(); begin += 256, ++block) {
    std::vector<float> new_m, new_v;
    for (size_t i = begin; i < std::min(value.size(), begin + 256); ++i) {
      const float g = gradient[i] * scale;
      float mi = std::fma(g, rest1, map1[codes1[i]] * absmax1[block] * beta1);
      float vi = std::fma(rest2 * g, g, map2[codes2[i]] * absmax2[block] * beta2);
      if (std::isfinite(mi) && std::isfinite(vi)) {
        const float denominator =
            std::sqrt(vi) / static_cast<float>(c2) + static_cast<float>(options.eps);
        value[i] = value[i] * static_cast<float>(1 - lr * options.weight_decay) +
                   static_cast<float>(-lr / c1) * mi / denominator;
      } else {
        mi = vi = 0;
      }
      new_m.push_back(mi);
      new_v.push_back(vi);
    }
    absmax1[block] = encode_block(map1, new_m, &codes1[begin]);
    absmax2[block] = encode_block(map2, new_v, &codes2[begin]);
  }
}

}  // namespace qlora::test

#include "quant/blockwise8/dynamic_map.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace qlora::quant {
namespace {

// `count` points from 0.1 to 1 as torch.linspace computes them: fused multiply-add from the nearer
// end.
std::vector<float> points(int count) {
  const float step = (1.0f - 0.1f) / static_cast<float>(count - 1);
  std::vector<float> result;
  for (int i = 0; i < count; ++i)
    result.push_back(i < count / 2 ? std::fma(step, static_cast<float>(i), 0.1f)
                                   : std::fma(-step, static_cast<float>(count - 1 - i), 1.0f));
  return result;
}

DynamicMap make_map(bool is_signed) {
  constexpr double kDecades[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0};
  std::vector<float> values = {0.0f, 1.0f};
  for (int i = 0; i < 7; ++i) {
    const std::vector<float> bounds = points((is_signed ? 1 << i : 2 << i) + 1);
    for (size_t j = 0; j + 1 < bounds.size(); ++j) {
      const float middle = (bounds[j] + bounds[j + 1]) / 2.0f;
      values.push_back(middle * static_cast<float>(kDecades[i]));
      if (is_signed) values.push_back(-values.back());
    }
  }
  std::sort(values.begin(), values.end());
  DynamicMap map;
  std::copy_n(values.begin(), map.size(), map.begin());
  return map;
}

}  // namespace

const DynamicMap& signed_dynamic_map() {
  static const DynamicMap map = make_map(true);
  return map;
}

const DynamicMap& unsigned_dynamic_map() {
  static const DynamicMap map = make_map(false);
  return map;
}

}  // namespace qlora::quant

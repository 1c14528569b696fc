#include "model/relative_bias.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

namespace qlora::model {
namespace {

// The shortest reach that is made, so that ever longer texts do not make it anew each.
constexpr int64_t kLeastReach = 256;

}  // namespace

int64_t relative_bucket(int64_t distance, const RelativeBiasSpec& spec) {
  const int64_t buckets = spec.bidirectional ? spec.buckets / 2 : spec.buckets;
  const int64_t first = spec.bidirectional && distance > 0 ? buckets : 0;
  const int64_t far = spec.bidirectional ? std::abs(distance) : std::max<int64_t>(-distance, 0);
  const int64_t exact = buckets / 2;
  if (far < exact) return first + far;
  // In float32 and in this order, since powers of two lie on the bounds of buckets.
  const float share = std::log(static_cast<float>(far) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(spec.max_distance) /
                                                  static_cast<double>(exact))) *
                      static_cast<float>(buckets - exact);
  return first + std::min(exact + static_cast<int64_t>(share), buckets - 1);
}

at::Tensor RelativeBias::by_distance(const RelativeBiasSpec& spec, int64_t positions) {
  if (!spec.present()) return {};
  if (biases_.defined() && biases_.size(1) >= 2 * positions - 1) return biases_;
  const int64_t reach = std::max(positions, kLeastReach);
  std::vector<int64_t> buckets;
  for (int64_t distance = 1 - reach; distance < reach; ++distance)
    buckets.push_back(relative_bucket(distance, spec));
  const at::Tensor rows = at::tensor(buckets, at::kLong).to(table.device());
  biases_ = table.index_select(0, rows).to(at::kFloat).t().contiguous();
  return biases_;
}

}  // namespace qlora::model

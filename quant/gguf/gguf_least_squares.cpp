#include "quant/gguf/gguf_least_squares.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace qlora::quant::gguf {
namespace {

constexpr float kSmallest = 1e-15f;  // below it a sub-block counts as zeros
constexpr size_t kMostElements = 32;

struct SignedSums {
  float products = 0, squares = 0;  // of x and q, of q, weighted
};

int clamped(float value, int low, int high) {
  return std::clamp(nearest_integer(value), low, high);
}

SignedSums sums_of_rounding(std::span<const float> x, float inverse, int limit) {
  SignedSums sums;
  for (const float value : x) {
    const auto q = static_cast<float>(clamped(inverse * value, -limit, limit - 1));
    const float weight = value * value;
    sums.products += weight * value * q;
    sums.squares += weight * q * q;
  }
  return sums;
}

void write_codes(std::span<const float> x, float inverse, int limit, std::span<uint8_t> codes) {
  for (size_t i = 0; i < x.size(); ++i)
    codes[i] = static_cast<uint8_t>(limit + clamped(inverse * x[i], -limit, limit - 1));
}

float of_largest_magnitude(std::span<const float> x) {
  float largest = 0, magnitude = 0;
  for (const float value : x)
    if (std::fabs(value) > magnitude) {
      magnitude = std::fabs(value);
      largest = value;
    }
  return largest;
}

// What all roundings of a sub-block share.
struct Elements {
  std::span<const float> x, weights;
  float smallest = 0, largest = 0;  // the smallest is at most 0
  float weight_sum = 0, sum = 0;    // weighted
};

Elements elements_of(std::span<const float> x, std::span<const float> weights) {
  Elements all{x, weights, x[0], x[0], weights[0], weights[0] * x[0]};
  for (size_t i = 1; i < x.size(); ++i) {
    all.smallest = std::min(all.smallest, x[i]);
    all.largest = std::max(all.largest, x[i]);
    all.weight_sum += weights[i];
    all.sum += weights[i] * x[i];
  }
  if (all.smallest > 0) all.smallest = 0;
  return all;
}

float error_of(const Elements& all, std::span<const uint8_t> codes, float scale, float offset) {
  float error = 0;
  for (size_t i = 0; i < all.x.size(); ++i) {
    const float difference = scale * static_cast<float>(codes[i]) + offset - all.x[i];
    error += all.weights[i] * (difference * difference);
  }
  return error;
}

// x ~ scale q + offset.
struct Line {
  float scale = 0, offset = 0;
  bool exists = false;
};

// Rounds by `inverse`, then fits the line to the codes.
Line fitted(const Elements& all, float inverse, int limit, std::span<uint8_t> codes) {
  float codes_sum = 0, squares = 0, products = 0;
  for (size_t i = 0; i < all.x.size(); ++i) {
    const int q = clamped(inverse * (all.x[i] - all.smallest), 0, limit);
    codes[i] = static_cast<uint8_t>(q);
    const float weighted = all.weights[i] * static_cast<float>(q);
    codes_sum += weighted;
    squares += weighted * static_cast<float>(q);
    products += weighted * all.x[i];
  }
  const float determinant = all.weight_sum * squares - codes_sum * codes_sum;
  if (!(determinant > 0)) return {};
  Line line{(all.weight_sum * products - all.sum * codes_sum) / determinant,
            (squares * all.sum - codes_sum * products) / determinant, true};
  if (line.offset > 0) {
    line.offset = 0;
    line.scale = products / squares;
  }
  return line;
}

}  // namespace

int nearest_integer(float value) {
  // 1.5 * 2^23: its last place is 1, so that the sum is rounded to an integer.
  const auto bits = std::bit_cast<int32_t>(value + 12582912.0f);
  return (bits & 0x007fffff) - 0x00400000;
}

float signed_scale(std::span<const float> x, int limit, std::span<uint8_t> codes) {
  const float largest = of_largest_magnitude(x);
  if (std::fabs(largest) < kSmallest) {
    std::ranges::fill(codes, uint8_t{0});
    return 0;
  }
  const auto steps = static_cast<float>(limit);
  const float first = -steps / largest;
  SignedSums sums = sums_of_rounding(x, first, limit);
  write_codes(x, first, limit, codes);
  float scale = sums.squares != 0 ? sums.products / sums.squares : 0.0f;
  float best = scale * sums.products;
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    const float inverse = -(steps + 0.1f * static_cast<float>(step)) / largest;
    sums = sums_of_rounding(x, inverse, limit);
    if (!(sums.squares > 0 && sums.products * sums.products > best * sums.squares)) continue;
    write_codes(x, inverse, limit, codes);
    scale = sums.products / sums.squares;
    best = scale * sums.products;
  }
  return scale;
}

ScaleAndMinimum scale_and_minimum(std::span<const float> x, std::span<const float> weights,
                                  int limit, const RoundingSearch& search,
                                  std::span<uint8_t> codes) {
  const Elements all = elements_of(x, weights);
  if (all.largest == all.smallest) {
    std::ranges::fill(codes, uint8_t{0});
    return {0, -all.smallest};
  }
  const auto steps = static_cast<float>(limit);
  const float range = all.largest - all.smallest;
  const float inverse = steps / range;
  float scale = 1 / inverse, offset = all.smallest;
  for (size_t i = 0; i < x.size(); ++i)
    codes[i] = static_cast<uint8_t>(clamped(inverse * (x[i] - all.smallest), 0, limit));
  float least = error_of(all, codes, scale, offset);
  std::array<uint8_t, kMostElements> storage;
  const std::span<uint8_t> tried(storage.data(), x.size());
  Elements moved = all;  // codes are counted from the best offset so far
  for (int step = 0; step <= search.steps; ++step) {
    moved.smallest = offset;
    const float codes_over_range = search.first + search.width * static_cast<float>(step) + steps;
    const Line line = fitted(moved, codes_over_range / (all.largest - offset), limit, tried);
    if (!line.exists) continue;
    const float error = error_of(all, tried, line.scale, line.offset);
    if (!(error < least)) continue;
    std::ranges::copy(tried, codes.begin());
    least = error;
    scale = line.scale;
    offset = line.offset;
  }
  return {scale, -offset};
}

}  // namespace qlora::quant::gguf

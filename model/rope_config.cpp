#include "model/rope_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <utility>

#include "base/error.h"

namespace qlora::model {
namespace {

constexpr double kLargest = std::numeric_limits<float>::max();  // frequencies are fp32

void require_positive(const char* field, double value, const std::string& where) {
  if (!(value > 0 && value <= kLargest))
    fail<FormatError>("{}: {} of RoPE's scaling must be above 0 and at most {}, got {}", where,
                      field, kLargest, value);
}

void require_factors(const char* field, const std::vector<float>& factors, int64_t half,
                     const std::string& where) {
  if (static_cast<int64_t>(factors.size()) != half)
    fail<FormatError>(
        "{}: {} of RoPE's scaling must have a number for each of the {} frequencies, got {}", where,
        field, half, factors.size());
  for (const float factor : factors) require_positive(field, factor, where);
}

// Base ^ (2i / width), in fp32 as transformers computes it.
float power(float base, int64_t i, int64_t width) {
  return std::pow(base, static_cast<float>(2 * i) / static_cast<float>(width));
}

float llama3(const RopeConfig& rope, float inverse) {
  const double wavelength = 2 * std::numbers::pi / inverse;
  const double low = rope.original_max_positions / rope.low_freq_factor;
  const double high = rope.original_max_positions / rope.high_freq_factor;
  if (wavelength > low) return static_cast<float>(inverse / rope.factor);
  if (wavelength < high) return inverse;
  const double smooth = (rope.original_max_positions / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return static_cast<float>((1 - smooth) * inverse / rope.factor + smooth * inverse);
}

// Between these dimensions yarn goes over from the frequencies themselves to those of the longer
// context.
struct Ramp {
  float begin, end;

  float at(int64_t i) const {
    return std::clamp((static_cast<float>(i) - begin) / (end - begin), 0.0f, 1.0f);
  }
};

Ramp yarn_ramp(const RopeConfig& rope, int64_t width) {
  const auto dimensions = static_cast<double>(width);
  // The dimension that turns `turns` times within the original context.
  const auto dimension = [&](double turns) {
    return dimensions * std::log(rope.original_max_positions / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(rope.theta));
  };
  double begin = dimension(rope.beta_fast), end = dimension(rope.beta_slow);
  if (rope.truncate) {
    begin = std::floor(begin);
    end = std::ceil(end);
  }
  begin = std::max(begin, 0.0);
  end = std::min(end, dimensions - 1);
  if (begin == end) end += 0.001;
  return {static_cast<float>(begin), static_cast<float>(end)};
}

float yarn(const RopeConfig& rope, const Ramp& ramp, float power_of_theta, int64_t i) {
  const float kept = 1.0f - ramp.at(i);
  const float slower = 1.0f / (static_cast<float>(rope.factor) * power_of_theta);
  return slower * (1.0f - kept) + 1.0f / power_of_theta * kept;
}

// The base that stretches the lowest frequency over a document beyond the context.
double dynamic_theta(const RopeConfig& rope, int64_t width, int64_t length) {
  const double stretch =
      std::max(static_cast<double>(length) / rope.original_max_positions, 1.0) * rope.factor -
      (rope.factor - 1);
  const auto d = static_cast<double>(width);
  return rope.theta * std::pow(stretch, d / (d - 2));
}

}  // namespace

void validate(const RotarySpec& spec, const std::string& where) {
  const RopeConfig& rope = spec.rope;
  if (!(rope.theta > 1 && rope.theta <= kLargest))
    fail<FormatError>("{}: rope_theta must be above 1 and at most {}, got {}", where, kLargest,
                      rope.theta);
  const auto positive = [&](const char* field, double value) {
    require_positive(field, value, where);
  };
  positive("factor", rope.factor);
  positive("low_freq_factor", rope.low_freq_factor);
  positive("original_max_position_embeddings", rope.original_max_positions);
  if (!(rope.high_freq_factor > rope.low_freq_factor && rope.high_freq_factor <= kLargest))
    fail<FormatError>(
        "{}: high_freq_factor of RoPE's scaling must be above low_freq_factor ({}), got {}", where,
        rope.low_freq_factor, rope.high_freq_factor);
  positive("attention_factor", rope.attention_factor);
  positive("beta_slow", rope.beta_slow);
  if (!(rope.beta_fast >= rope.beta_slow && rope.beta_fast <= kLargest))
    fail<FormatError>("{}: beta_fast of RoPE's scaling must be at least beta_slow ({}), got {}",
                      where, rope.beta_slow, rope.beta_fast);
  const int64_t least = rope.type == "dynamic" ? 4 : 2;  // its exponent is d / (d - 2)
  if (spec.width < least || spec.width % 2 != 0)
    fail<FormatError>(
        "{}: the number of a head's elements that RoPE turns must be even and at least {}, got {}",
        where, least, spec.width);
  if (rope.type == "longrope") {
    require_factors("short_factor", rope.short_factor, spec.width / 2, where);
    require_factors("long_factor", rope.long_factor, spec.width / 2, where);
  }
}

bool depends_on_length(const RopeConfig& rope) {
  return rope.type == "dynamic" || rope.type == "longrope";
}

std::vector<float> inverse_frequencies(const RopeConfig& rope, int64_t width, int64_t length) {
  const double theta = rope.type == "dynamic" ? dynamic_theta(rope, width, length) : rope.theta;
  const bool is_long = static_cast<double>(length) > rope.original_max_positions;
  const Ramp ramp = rope.type == "yarn" ? yarn_ramp(rope, width) : Ramp{};
  std::vector<float> result(static_cast<size_t>(width / 2));
  for (int64_t i = 0; i < width / 2; ++i) {
    const auto at = static_cast<size_t>(i);
    const float power_of_theta = power(static_cast<float>(theta), i, width);
    float inverse = 1.0f / power_of_theta;
    if (rope.type == "linear") inverse /= static_cast<float>(rope.factor);
    if (rope.type == "llama3") inverse = llama3(rope, inverse);
    if (rope.type == "yarn") inverse = yarn(rope, ramp, power_of_theta, i);
    if (rope.type == "longrope")
      inverse = 1.0f / ((is_long ? rope.long_factor : rope.short_factor)[at] * power_of_theta);
    if (!rope.divisors.empty()) inverse /= rope.divisors[at];
    result[at] = inverse;
  }
  return result;
}

double yarn_attention_factor(double factor, double mscale, double mscale_all_dim) {
  const auto scale = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1; };
  return mscale != 0 && mscale_all_dim != 0 ? scale(mscale) / scale(mscale_all_dim) : scale(1);
}

double longrope_attention_factor(double factor, double original_max_positions) {
  return factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original_max_positions));
}

namespace {

// Whether `scaled` has the frequencies of `plain` divided by `divisors`.
bool divides_as(const RopeConfig& scaled, const RopeConfig& plain,
                const std::vector<float>& divisors, double tolerance) {
  const auto width = static_cast<int64_t>(2 * divisors.size());
  const std::vector<float> expected = inverse_frequencies(scaled, width);
  const std::vector<float> base = inverse_frequencies(plain, width);
  for (size_t i = 0; i < divisors.size(); ++i)
    if (!(std::abs(base[i] / divisors[i] - expected[i]) <= tolerance * expected[i])) return false;
  return true;
}

double rounded_if_near(double value) {
  const double whole = std::round(value);
  return whole > 0 && std::abs(value - whole) <= 1e-3 * whole ? whole : value;
}

// Between the two ends of the scaling 1 / divisor is linear in 1 / wavelength, with the slope
// original / (high - low) and the offset -low / (high - low) once the factor is taken out: two such
// frequencies give both, and one does where high is four times low as in Llama 3's. Of original,
// low and high only the quotients count, so low is 1.
std::optional<RopeConfig> fitted_llama3(RopeConfig scaled, const RopeConfig& plain,
                                        const std::vector<float>& divisors) {
  const std::vector<float> base =
      inverse_frequencies(plain, static_cast<int64_t>(2 * divisors.size()));
  std::vector<std::pair<double, double>> between;  // 1 / wavelength, smooth
  for (size_t i = 0; i < divisors.size(); ++i) {
    const double smooth =
        (1 / static_cast<double>(divisors[i]) - 1 / scaled.factor) / (1 - 1 / scaled.factor);
    if (smooth > 1e-5 && smooth < 1 - 1e-5)
      between.emplace_back(base[i] / (2 * std::numbers::pi), smooth);
  }
  if (between.empty()) return std::nullopt;
  const auto [x0, y0] = between.front();
  const auto [x1, y1] = between.back();
  scaled.low_freq_factor = 1;
  if (between.size() > 1) {
    const double low_share = (y1 - y0) / (x1 - x0) * x0 - y0;  // low / (high - low)
    if (!(low_share > 0)) return std::nullopt;
    scaled.high_freq_factor = rounded_if_near(1 + 1 / low_share);
  }
  scaled.original_max_positions = rounded_if_near((y0 * (scaled.high_freq_factor - 1) + 1) / x0);
  if (!divides_as(scaled, plain, divisors, 1e-5)) return std::nullopt;
  return scaled;
}

}  // namespace

RopeConfig recognise_llama3(RopeConfig rope, const std::vector<float>& divisors) {
  RopeConfig scaled = rope;
  scaled.type = "llama3";
  scaled.factor = *std::max_element(divisors.begin(), divisors.end());
  if (divides_as(scaled, rope, divisors, 1e-4)) return scaled;
  if (const std::optional<RopeConfig> fitted = fitted_llama3(scaled, rope, divisors))
    return *fitted;
  rope.divisors = divisors;
  return rope;
}

}  // namespace qlora::model

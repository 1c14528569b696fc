// The searches by which K blocks choose the scales of their sub-blocks (llama.cpp,
// ggml-quants.c): a number of roundings is tried, each with the scale, or scale and minimum, that
// then minimises the weighted sum of squared errors. Sums run in float32 from the first element to
// the last.
#pragma once

#include <cstdint>
#include <span>

namespace qlora::quant::gguf {

// The nearest integer, ties to even; |value| must be below 2^22.
int nearest_integer(float value);

// x ~ scale q, q in [-limit, limit - 1], each element weighted by its square. Writes q + limit to
// `codes` and returns the scale; 0 for elements that are all zero.
float signed_scale(std::span<const float> x, int limit, std::span<uint8_t> codes);

// x ~ scale q - minimum, q in [0, limit], minimum not negative.
struct ScaleAndMinimum {
  float scale = 0, minimum = 0;
};
// The roundings that are tried: steps of `width` codes from `first` on are added to the limit over
// which the range is spread.
struct RoundingSearch {
  float first, width;
  int steps;
};
// Element i has weights[i]; at most 32 elements. Writes q to `codes`.
ScaleAndMinimum scale_and_minimum(std::span<const float> x, std::span<const float> weights,
                                  int limit, const RoundingSearch& search,
                                  std::span<uint8_t> codes);

}  // namespace qlora::quant::gguf

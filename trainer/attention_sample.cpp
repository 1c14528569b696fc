#include "trainer/attention_sample.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "base/device.h"
#include "base/stopwatch.h"
#include "model/attention.h"
#include "model/attention_routes.h"

namespace qlora::trainer {
namespace {

// Forward and backward of one document.
double operations_of_document(const model::AttentionShape& shape, int64_t length) {
  return 3.5 * static_cast<double>(length) * attention_operations(shape, length);
}

model::AttentionContext context_of(const model::AttentionShape& shape, int64_t length,
                                   c10::Device device) {
  const auto numbers = at::TensorOptions().dtype(at::kFloat).device(device);
  model::AttentionContext context;
  context.cu_seqlens = {0, static_cast<int32_t>(length)};
  if (device.is_cuda()) context.boundaries = at::tensor(context.cu_seqlens, at::kInt).to(device);
  if (shape.position_bias) context.position_bias = at::zeros({shape.heads, length}, numbers);
  if (shape.relative_bias)
    context.relative_bias = at::zeros({shape.heads, 2 * length - 1}, numbers);
  if (shape.sinks) context.sinks = {at::zeros({shape.heads}, numbers)};
  return context;
}

// The least of two calls, of which the first sizes buffers.
AttentionSample measure(const model::AttentionShape& shape, int64_t length, at::ScalarType compute,
                        c10::Device device) {
  constexpr int kCalls = 2;
  const auto rows = [&](int64_t heads) {
    const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
    return at::linspace(-1, 1, length * heads * shape.head_dim, options)
        .view({length, heads * shape.head_dim})
        .to(compute)
        .requires_grad_();
  };
  const std::vector<at::Tensor> qkv = {rows(shape.heads), rows(shape.kv_heads),
                                       rows(shape.kv_heads)};
  const model::AttentionContext context = context_of(shape, length, device);
  constexpr double kNone = std::numeric_limits<double>::infinity();
  AttentionTime least = {kNone, kNone};
  for (int call = 0; call < kCalls; ++call) {
    for (const at::Tensor& part : qkv) part.mutable_grad().reset();
    synchronize(device);
    Stopwatch watch;
    const at::Tensor out = model::attention(qkv, shape, nullptr, context, 0);
    synchronize(device);
    least.forward = std::min(least.forward, watch.seconds());
    const at::Tensor gradient = at::ones_like(out);
    synchronize(device);
    watch.restart();
    out.backward(gradient);
    synchronize(device);
    least.backward = std::min(least.backward, watch.seconds());
  }
  const auto tokens = static_cast<double>(length);
  return {length, {least.forward / tokens, least.backward / tokens}};
}

double growth(double at_shorter, double at_longer, double keys_of_shorter, double keys_of_longer,
              double from, double to) {
  double a_key = at_longer / keys_of_longer;
  if (at_longer > at_shorter && keys_of_longer > keys_of_shorter)
    a_key = std::min(a_key, (at_longer - at_shorter) / (keys_of_longer - keys_of_shorter));
  const double beside = at_longer - a_key * keys_of_longer;
  return (beside + a_key * to) / (beside + a_key * from);
}

}  // namespace

double mean_keys(const model::AttentionShape& shape, int64_t length) {
  const auto all = static_cast<double>(length);
  if (!shape.causal || shape.cross) return all;
  if (shape.window == 0 || shape.window >= length) return (all + 1) / 2;
  const auto window = static_cast<double>(shape.window);
  return window - window * (window - 1) / (2 * all);
}

double attention_operations(const model::AttentionShape& shape, int64_t length) {
  return 4 * static_cast<double>(shape.heads * shape.head_dim) * mean_keys(shape, length);
}

AttentionTime attention_growth(const model::AttentionShape& shape, const AttentionSample& shorter,
                               const AttentionSample& longer, int64_t from, int64_t to) {
  const auto of_pass = [&](double at_shorter, double at_longer) {
    return growth(at_shorter, at_longer, mean_keys(shape, shorter.length),
                  mean_keys(shape, longer.length), mean_keys(shape, from), mean_keys(shape, to));
  };
  return {of_pass(shorter.seconds.forward, longer.seconds.forward),
          of_pass(shorter.seconds.backward, longer.seconds.backward)};
}

AttentionTime measure_attention_growth(const model::AttentionShape& shape, int64_t from, int64_t to,
                                       double operations, at::ScalarType compute,
                                       c10::Device device) {
  constexpr int64_t kShortest = 64, kTimesShorter = 8;
  if (from == to) return {};
  if (shape.cross || model::attention_route(shape, compute, device.type()).holds_scores) {
    const double keys = mean_keys(shape, to) / mean_keys(shape, from);
    return {keys, keys};
  }
  int64_t length = kShortest;
  while (2 * length <= to && operations_of_document(shape, 2 * length) <= operations) length *= 2;
  return attention_growth(shape, measure(shape, length / kTimesShorter, compute, device),
                          measure(shape, length, compute, device), from, to);
}

}  // namespace qlora::trainer

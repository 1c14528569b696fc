// The operations of a training step one by one, on the CPU in bf16 at the sizes of SmolLM2 135M:
// FLOP/s of those that multiply, bytes/s of those that pass over memory. `of_peak` is the share of
// what the machine gave in the same process: a large bf16 product, or a memcpy of as many bytes.
//
//   OMP_NUM_THREADS=2 build/bin/bench_ops
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "base/arena_allocator.h"
#include "base/device.h"
#include "base/parallel_for.h"
#include "base/short_waits.h"
#include "base/stopwatch.h"
#include "bench/made_model.h"
#include "lora/low_rank.h"
#include "model/activation.h"
#include "model/attention.h"
#include "model/norm.h"
#include "trainer/loss_kernels.h"

namespace qlora::bench {
namespace {

using Lengths = std::vector<int64_t>;  // of the documents of a pass
constexpr int64_t kRank = 16;

at::Tensor random(int64_t rows, int64_t columns, at::ScalarType dtype = at::kBFloat16) {
  return at::empty({rows, columns}, at::kFloat).normal_().to(dtype);
}

at::Tensor differentiable(at::Tensor t) { return t.set_requires_grad(true); }

// The shortest of the calls of a fifth of a second: what the machine can do, whatever else it does
// now and then.
template <typename Body>
double least_seconds(const Body& body) {
  const Stopwatch all;
  double least = 1e9;
  for (int i = 0; i < 10 || all.seconds() < 0.2; ++i) {
    const Stopwatch watch;
    body();
    least = std::min(least, watch.seconds());
  }
  return least;
}

double peak_flops() {
  static const double peak = [] {
    constexpr int64_t kSize = 2048;
    const at::Tensor a = random(kSize, kSize), b = random(kSize, kSize);
    at::Tensor out = at::empty({kSize, kSize}, at::kBFloat16);
    return 2.0 * kSize * kSize * kSize / least_seconds([&] { at::mm_out(out, a, b.t()); });
  }();
  return peak;
}

// Of a copy that reads and writes `bytes` in all: small ones stay in the caches, as the op's do.
double peak_bandwidth(int64_t bytes) {
  static std::map<int64_t, double> known;
  double& peak = known[bytes];
  if (peak > 0) return peak;
  const int64_t half = std::max<int64_t>(bytes / 2, 1 << 16);
  const at::Tensor source = at::ones({half}, at::kChar);
  at::Tensor target = at::zeros({half}, at::kChar);
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(target.mutable_data_ptr());
  const double seconds = least_seconds([&] {
    // Several copies a call, or the clock would see the threads' start.
    for (int i = 0; i < 8; ++i)
      parallel_for(half, 1 << 14, [&](int64_t begin, int64_t end) {
        std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
        benchmark::ClobberMemory();
      });
  });
  return peak = 8.0 * 2.0 * static_cast<double>(half) / seconds;
}

// Mean seconds of a call that times itself.
template <typename Call>
double mean_seconds(benchmark::State& state, const Call& call) {
  double seconds = 0;
  for (auto _ : state) {
    const double of_call = call();
    state.SetIterationTime(of_call);
    seconds += of_call;
  }
  return seconds / static_cast<double>(state.iterations());
}

template <typename Body>
double mean_seconds_of(benchmark::State& state, const Body& body) {
  return mean_seconds(state, [&] {
    const Stopwatch watch;
    body();
    return watch.seconds();
  });
}

void count(benchmark::State& state, const char* unit, double rate, double peak) {
  state.counters[unit] = rate;
  state.counters["of_peak"] = rate / peak;
  state.counters["threads"] = num_threads();
}
void count_flops(benchmark::State& state, double flops, double seconds) {
  count(state, "FLOP/s", flops / seconds, peak_flops());
}
void count_bytes(benchmark::State& state, int64_t bytes, double seconds) {
  count(state, "bytes/s", static_cast<double>(bytes) / seconds, peak_bandwidth(bytes));
}

// What an attention pass gets.
struct AttentionInput {
  explicit AttentionInput(const Lengths& lengths, const char* model = "135m")
      : architecture(shape_named(model)), spec(architecture.block(0).attention()) {
    std::vector<int32_t> positions;
    context.cu_seqlens = {0};
    for (const int64_t length : lengths) {
      for (int64_t i = 0; i < length; ++i) positions.push_back(static_cast<int32_t>(i));
      context.cu_seqlens.push_back(static_cast<int32_t>(positions.size()));
      squares += static_cast<double>(length * length);
    }
    tokens = static_cast<int64_t>(positions.size());
    rotary = model::Rotary(architecture.rotaries[0], spec.shape.head_dim, at::kCPU)
                 .at_positions(positions);
    q = differentiable(random(tokens, spec.queries()));
    k = differentiable(random(tokens, spec.keys()));
    v = differentiable(random(tokens, spec.keys()));
  }
  torch::autograd::variable_list forward() const {
    return {model::attention({q, k, v}, spec.shape, &rotary, context, 0)};
  }
  // Of one product of scores with keys or values, below the diagonal.
  double flops_of_a_product() const { return squares * static_cast<double>(spec.queries()); }
  model::Architecture architecture;
  const model::AttentionSpec& spec;
  model::AttentionContext context;
  model::RotaryTable rotary;
  at::Tensor q, k, v;
  int64_t tokens = 0;
  double squares = 0;
};

// Seconds of `forward`, or of the backward pass of what it gave, from gradients made beforehand.
template <typename Forward>
double seconds_of_pass(benchmark::State& state, bool backward,
                       const std::vector<at::Tensor>& inputs, const Forward& forward) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& output : forward()) gradients.push_back(at::empty_like(output).normal_());
  return mean_seconds(state, [&] {
    Stopwatch watch;
    const torch::autograd::variable_list outputs = forward();
    if (!backward) return watch.seconds();
    watch = Stopwatch();
    torch::autograd::grad(outputs, inputs, gradients);
    return watch.seconds();
  });
}

void attention(benchmark::State& state, const char* model, const Lengths& lengths, bool backward) {
  const AttentionInput input(lengths, model);
  const double seconds = seconds_of_pass(state, backward, {input.q, input.k, input.v},
                                         [&] { return input.forward(); });
  // Forward two products; backward the scores again, dP, dQ, dK and dV.
  count_flops(state, (backward ? 5 : 2) * input.flops_of_a_product(), seconds);
}

// q alone; the attention above has it inside.
void rotary(benchmark::State& state) {
  const AttentionInput input({512});
  const at::Tensor q = input.q.detach();
  const double seconds = mean_seconds_of(state, [&] { model::rotate(q, input.rotary, false); });
  count_bytes(state, 2 * static_cast<int64_t>(q.nbytes() + input.rotary.cos.nbytes()), seconds);
}

void rms_norm(benchmark::State& state, bool backward) {
  constexpr int64_t kTokens = 512, kHidden = 576;
  const at::Tensor residual = differentiable(random(kTokens, kHidden, at::kFloat));
  const at::Tensor delta = differentiable(random(kTokens, kHidden));
  const at::Tensor weight = at::ones({kHidden}, at::kFloat);
  const double seconds = seconds_of_pass(state, backward, {residual, delta}, [&] {
    const auto out = model::add_norm(residual, delta, weight, {model::NormKind::kRms, 1e-5},
                                     at::kBFloat16, true);
    return torch::autograd::variable_list{out.residual, out.normed};
  });
  // An fp32 and a 16-bit row in, and both out; backward the kept residual besides.
  count_bytes(state, kTokens * kHidden * (4 + 2 + 4 + 2 + (backward ? 4 : 0)), seconds);
}

void swiglu(benchmark::State& state, bool backward) {
  constexpr int64_t kTokens = 512, kInner = 1536;
  const at::Tensor gate = differentiable(random(kTokens, kInner));
  const at::Tensor up = differentiable(random(kTokens, kInner));
  const double seconds = seconds_of_pass(state, backward, {gate, up}, [&] {
    return torch::autograd::variable_list{model::activate(gate, up)};
  });
  count_bytes(state, kTokens * kInner * 2 * (backward ? 5 : 3), seconds);
}

// A chunk of logits into its losses and, in place, its gradient.
void softmax_cross_entropy(benchmark::State& state) {
  constexpr int64_t kRows = 256, kVocab = 49152;
  at::Tensor logits = random(kRows, kVocab), losses = at::empty({kRows}, at::kFloat);
  const std::vector<int64_t> targets(kRows, 7);
  const std::vector<float> scales(kRows, 1.0f);
  const double seconds = mean_seconds_of(state, [&] {
    trainer::cpu::softmax_cross_entropy({logits.data_ptr(), quant::ElementType::kBFloat16,
                                         targets.data(), kRows, kVocab, scales.data(), true,
                                         losses.data_ptr<float>()});
  });
  count_bytes(state, 2 * static_cast<int64_t>(logits.nbytes()), seconds);
}

// Adapters' products with 512 tokens of range(0) features, which are read, and by `up` written too:
// bytes bound them, not the 2 · rank operations an element.
void low_rank_down(benchmark::State& state) {
  const at::Tensor x = random(512, state.range(0)), a = random(kRank, state.range(0));
  const at::Tensor h = at::empty({512, kRank}, at::kBFloat16);
  const double seconds = mean_seconds_of(state, [&] { lora::low_rank_down(x, a, 1.0, h); });
  count_bytes(state, static_cast<int64_t>(x.nbytes() + a.nbytes() + h.nbytes()), seconds);
}

void low_rank_up(benchmark::State& state) {
  const at::Tensor h = random(512, kRank), b = random(state.range(0), kRank);
  const at::Tensor y = at::zeros({512, state.range(0)}, at::kBFloat16);
  const double seconds = mean_seconds_of(state, [&] { lora::low_rank_up(h, b, 1e-3, true, y); });
  count_bytes(state, static_cast<int64_t>(h.nbytes() + b.nbytes() + 2 * y.nbytes()), seconds);
}

void low_rank_gradient(benchmark::State& state) {
  const at::Tensor h = random(512, kRank), x = random(512, state.range(0));
  const at::Tensor gradient = at::zeros({kRank, state.range(0)}, at::kFloat);
  const double seconds =
      mean_seconds_of(state, [&] { lora::low_rank_gradient(h, x, 1e-3, gradient); });
  count_bytes(state, static_cast<int64_t>(h.nbytes() + x.nbytes() + 2 * gradient.nbytes()),
              seconds);
}

// What `of_peak` divides by; the copy at two sizes for example.
void product_peak(benchmark::State& state) {
  for (auto _ : state) state.counters["FLOP/s"] = peak_flops();
}
void copy_peak(benchmark::State& state) {
  for (auto _ : state) state.counters["bytes/s"] = peak_bandwidth(state.range(0));
}

const Lengths kRow{512}, kLongRow{2048}, kLongestRow{8192}, kPacked(5, 100), kChat(20, 102);

void hidden_and_inner(benchmark::internal::Benchmark* benchmark) {
  benchmark->Arg(576)->Arg(1536)->UseManualTime()->Unit(benchmark::kMicrosecond);
}
void in_microseconds(benchmark::internal::Benchmark* benchmark) {
  benchmark->UseManualTime()->Unit(benchmark::kMicrosecond);
}

BENCHMARK(product_peak)->Iterations(1);
BENCHMARK(copy_peak)->Arg(1 << 20)->Arg(64 << 20)->Iterations(1);
BENCHMARK_CAPTURE(attention, 1x512_forward, "135m", kRow, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x512_backward, "135m", kRow, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x2048_forward, "135m", kLongRow, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x2048_backward, "135m", kLongRow, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x8192_forward, "135m", kLongestRow, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x8192_backward, "135m", kLongestRow, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_5x100_forward, "135m", kPacked, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_5x100_backward, "135m", kPacked, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_20x102_forward, "135m", kChat, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_20x102_backward, "135m", kChat, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x512_of_8b_forward, "8b", kRow, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, 1x512_of_8b_backward, "8b", kRow, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_20x102_of_8b_forward, "8b", kChat, false)
    ->Apply(in_microseconds);
BENCHMARK_CAPTURE(attention, packed_20x102_of_8b_backward, "8b", kChat, true)
    ->Apply(in_microseconds);
BENCHMARK(rotary)->Apply(in_microseconds);
BENCHMARK_CAPTURE(rms_norm, forward, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(rms_norm, backward, true)->Apply(in_microseconds);
BENCHMARK_CAPTURE(swiglu, forward, false)->Apply(in_microseconds);
BENCHMARK_CAPTURE(swiglu, backward, true)->Apply(in_microseconds);
BENCHMARK(softmax_cross_entropy)->Apply(in_microseconds);
BENCHMARK(low_rank_down)->Apply(hidden_and_inner);
BENCHMARK(low_rank_up)->Apply(hidden_and_inner);
BENCHMARK(low_rank_gradient)->Apply(hidden_and_inner);

}  // namespace
}  // namespace qlora::bench

QLORA_SHORT_WAITS

int main(int argc, char** argv) {
  qlora::use_arena_for_cpu_tensors();
  qlora::set_num_threads(0);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

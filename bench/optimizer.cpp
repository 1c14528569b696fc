// One optimizer step over the adapter of a 135M Llama (rank 16, 210 layers, 420 tensors, 4.9M
// parameters) and the gradient norm before it. items_per_second counts parameters.
//
//   OMP_NUM_THREADS=2 build/bin/bench_optimizer
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "base/parallel_for.h"
#include "optim/grad_clip.h"
#include "optim/optimizer.h"

namespace qlora::optim {
namespace {

struct Adapter {
  Adapter() {
    constexpr int64_t kRank = 16, kWidth = 576, kKeys = 192, kInner = 1536;
    std::vector<int64_t> sizes;
    for (int layer = 0; layer < 30; ++layer)
      for (const int64_t features : {kWidth, kWidth, kWidth, kKeys, kWidth, kKeys, kWidth, kWidth,
                                     kWidth, kInner, kWidth, kInner, kInner, kWidth})
        sizes.push_back(kRank * features);
    int64_t total = 0;
    for (const int64_t size : sizes) total += size;
    values = at::randn({total}) * 0.02;
    gradients = at::randn({total}) * 1e-3;
    int64_t offset = 0;
    for (const int64_t size : sizes) {
      parameters.push_back({.name = std::to_string(offset),
                            .value = values.narrow(0, offset, size),
                            .gradient = gradients.narrow(0, offset, size)});
      offset += size;
    }
  }
  at::Tensor values, gradients;
  std::vector<Parameter> parameters;
};

void count_parameters(benchmark::State& state, const Adapter& adapter) {
  state.SetItemsProcessed(state.iterations() * adapter.values.numel());
  state.counters["threads"] = num_threads();
}

// resident: the share of the state that stays in the arena; 0 means an unpaged optimizer.
void step(benchmark::State& state, const char* name, double resident) {
  Adapter adapter;
  OptimizerOptions options;
  options.name = name;
  if (resident > 0) {
    std::vector<int64_t> sizes;
    for (const Parameter& parameter : adapter.parameters) sizes.push_back(parameter.value.numel());
    options.paged_resident_bytes = static_cast<int64_t>(
        resident * static_cast<double>(optimizer_state_bytes(options, sizes, false).device));
  }
  const auto optimizer = make_optimizer(options, adapter.parameters);
  for (auto _ : state) optimizer->step(1e-4, 0.5);
  count_parameters(state, adapter);
}

void norm(benchmark::State& state) {
  const Adapter adapter;
  for (auto _ : state) benchmark::DoNotOptimize(gradient_norm(adapter.gradients, 1.0));
  count_parameters(state, adapter);
}

BENCHMARK(norm)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, adamw, "adamw", 0.0)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, adamw_8bit, "adamw_8bit", 0.0)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(step, paged_adamw_8bit_half, "paged_adamw_8bit", 0.5)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace qlora::optim

BENCHMARK_MAIN();

// Quantization and dequantization on the CPU, beside a memcpy of the same bytes: bytes_per_second
// counts what is written.
//
//   OMP_NUM_THREADS=2 build/bin/bench_quant
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <string>

#include "base/parallel_for.h"
#include "quant/blockwise8.h"
#include "quant/blockwise8_kernels.h"
#include "quant/nf4.h"
#include "quant/nf4_block_decoders.h"

namespace qlora::quant {
namespace {

at::Tensor made_weight(int64_t rows, int64_t columns, at::ScalarType dtype) {
  at::manual_seed(1);
  return (at::randn({rows, columns}) * 0.02).to(dtype);
}

void count_output(benchmark::State& state, const at::Tensor& out) {
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(out.nbytes()));
  state.counters["threads"] = num_threads();
}

// What memory and caches allow: the same bytes copied by as many threads from a buffer of the same
// size.
void copy_panel(benchmark::State& state) {
  const at::Tensor source = made_weight(state.range(0), state.range(1), at::kBFloat16);
  at::Tensor out = at::zeros_like(source);
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  for (auto _ : state)
    parallel_for(static_cast<int64_t>(out.nbytes()), 1 << 16, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
  count_output(state, out);
}

// What the stores alone allow.
void fill_panel(benchmark::State& state) {
  at::Tensor out = made_weight(state.range(0), state.range(1), at::kBFloat16);
  auto* to = static_cast<char*>(out.mutable_data_ptr());
  for (auto _ : state)
    parallel_for(static_cast<int64_t>(out.nbytes()), 1 << 16, [&](int64_t begin, int64_t end) {
      std::memset(to + begin, 1, static_cast<size_t>(end - begin));
      benchmark::ClobberMemory();
    });
  count_output(state, out);
}

void dequantize_panel(benchmark::State& state, at::ScalarType dtype, bool double_quant) {
  const at::Tensor weight = made_weight(state.range(0), state.range(1), at::kBFloat16);
  const FourBitTensor quantized = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, double_quant);
  at::Tensor out = at::zeros(weight.sizes(), dtype);
  for (auto _ : state) dequantize_range(quantized, 0, quantized.num_elements, out);
  count_output(state, out);
}

// One decoder on one thread.
void decode_blocks(benchmark::State& state, const cpu::BlockDecoder& decoder, ElementType type) {
  const at::Tensor weight = made_weight(256, 1536, at::kFloat);
  const FourBitTensor quantized = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, false);
  at::Tensor out =
      at::zeros(weight.sizes(), type == ElementType::kFloat32 ? at::kFloat : at::kBFloat16);
  const FourBitDequantizeArguments arguments{
      quantized.packed.const_data_ptr<uint8_t>(),
      {quantized.absmax.const_data_ptr<float>(), nullptr, nullptr, nullptr, nullptr, 0},
      FourBitCode::kNf4,
      64,
      0,
      weight.numel(),
      out.mutable_data_ptr(),
      type};
  for (auto _ : state) decoder.decode(arguments, 0, quantized.num_blocks(), arguments.out);
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(out.nbytes()));
}

void quantize_weight(benchmark::State& state, at::ScalarType dtype, bool double_quant) {
  const at::Tensor weight = made_weight(8192, 4096, dtype);
  for (auto _ : state)
    benchmark::DoNotOptimize(quantize_four_bit(weight, {FourBitCode::kNf4, 64}, double_quant));
  state.SetItemsProcessed(state.iterations() * weight.numel());
}

void quantize_state8(benchmark::State& state) {
  const at::Tensor x = made_weight(4096, 1024, at::kFloat);
  const at::Tensor map = map_tensor(signed_dynamic_map(), at::kCPU);
  for (auto _ : state) benchmark::DoNotOptimize(quantize_blockwise8(x, map, 256));
  state.SetItemsProcessed(state.iterations() * x.numel());
}

void dequantize_state8(benchmark::State& state) {
  const at::Tensor x = made_weight(4096, 1024, at::kFloat);
  const Blockwise8Tensor quantized =
      quantize_blockwise8(x, map_tensor(signed_dynamic_map(), at::kCPU), 256);
  at::Tensor out = at::zeros_like(x);
  for (auto _ : state) dequantize_blockwise8(quantized, out);
  state.SetItemsProcessed(state.iterations() * x.numel());
}

// [rows, in] of SmolLM2 135M's and of an 8B model's projections.
void panels(benchmark::internal::Benchmark* benchmark) {
  benchmark->Args({64, 576})
      ->Args({576, 576})
      ->Args({1536, 576})
      ->Args({576, 1536})
      ->Args({1536, 4096})
      ->UseRealTime();
}

BENCHMARK(copy_panel)->Apply(panels);
BENCHMARK(fill_panel)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, bfloat16, at::kBFloat16, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, bfloat16_double_quant, at::kBFloat16, true)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, float16, at::kHalf, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, float32, at::kFloat, false)->Apply(panels);
BENCHMARK_CAPTURE(quantize_weight, bfloat16, at::kBFloat16, false)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(quantize_weight, float16, at::kHalf, false)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(quantize_weight, float32, at::kFloat, false)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(quantize_weight, float32_double_quant, at::kFloat, true)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(quantize_state8)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(dequantize_state8)->UseRealTime()->Unit(benchmark::kMillisecond);

void register_decoders() {
  for (const cpu::BlockDecoder& decoder : cpu::block_decoders()) {
    if (!decoder.supported()) continue;
    for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat32}) {
      const std::string name = std::string("decode_blocks/") + decoder.name +
                               (type == ElementType::kFloat32 ? "/float32" : "/bfloat16");
      benchmark::RegisterBenchmark(name.c_str(), decode_blocks, decoder, type);
    }
  }
}

}  // namespace
}  // namespace qlora::quant

int main(int argc, char** argv) {
  qlora::quant::register_decoders();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

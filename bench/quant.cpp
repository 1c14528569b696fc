// Quantization and dequantization on the CPU, beside a memcpy of the same bytes: bytes_per_second
// counts what is written, packed_bytes_per_second what is read. Products of few rows, beside
// reading as many bytes from memory: bytes_per_second counts what is read of the weights. All
// formats side by side, on every instruction set: formats.cpp.
//
//   OMP_NUM_THREADS=2 build/bin/bench_quant
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "base/short_waits.h"
#include "bench/made_formats.h"
#include "quant/blockwise8/blockwise8.h"
#include "quant/blockwise8/blockwise8_kernels.h"
#include "quant/few_rows/rows_product.h"
#include "quant/formats/four_bit_weight.h"
#include "quant/formats/grouped_weight.h"
#include "quant/grouped/grouped.h"
#include "quant/nf4/nf4.h"
#include "quant/nf4/nf4_block_decoders.h"

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

void dequantize_grouped_panel(benchmark::State& state, int bits, at::ScalarType dtype,
                              bool scattered) {
  const GroupedTensor weight = bench::made_grouped(state.range(0), state.range(1), bits, scattered);
  at::Tensor out = at::zeros({weight.rows(), weight.in}, dtype);
  for (auto _ : state) dequantize_grouped(weight, 0, weight.rows(), out);
  count_output(state, out);
  state.counters["packed_bytes_per_second"] =
      benchmark::Counter(static_cast<double>(state.iterations() * weight.bytes()),
                         benchmark::Counter::kIsRate, benchmark::Counter::kIs1024);
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

// Weights of several layers, more than caches hold, each multiplied once.
constexpr int64_t kStreamedBytes = 96 << 20;

// What memory allows: a byte that is nowhere is looked for.
void read_memory(benchmark::State& state) {
  const at::Tensor source = at::ones({kStreamedBytes}, at::kByte);
  const auto* from = static_cast<const char*>(source.const_data_ptr());
  for (auto _ : state)
    parallel_for(kStreamedBytes, 1 << 16, [&](int64_t begin, int64_t end) {
      benchmark::DoNotOptimize(std::memchr(from + begin, 0, static_cast<size_t>(end - begin)));
    });
  count_output(state, source);
}

using Weights = std::vector<std::unique_ptr<FrozenWeight>>;

template <typename Make>
Weights streamed(const Make& make) {
  Weights all;
  for (int64_t bytes = 0; bytes < kStreamedBytes; bytes += all.back()->bytes())
    all.push_back(make());
  return all;
}

Weights streamed_nf4(const benchmark::State& state) {
  const at::Tensor weight = made_weight(state.range(0), state.range(1), at::kBFloat16);
  const FourBitTensor q = quantize_four_bit(weight, {FourBitCode::kNf4, 64}, true);
  return streamed([&] {
    FourBitTensor copy = q;
    copy.packed = q.packed.clone();
    copy.scales->codes = q.scales->codes.clone();
    return std::make_unique<FourBitWeight>(
        copy, WeightShape::matrix(weight.size(0), weight.size(1)), at::kBFloat16);
  });
}

Weights streamed_grouped(const benchmark::State& state, int bits, bool scattered) {
  const GroupedTensor weight = bench::made_grouped(state.range(0), state.range(1), bits, scattered);
  return streamed([&] {
    GroupedTensor copy = weight;
    copy.codes = weight.codes.clone();
    copy.scales = weight.scales.clone();
    copy.zeros = weight.zeros.clone();
    return std::make_unique<GroupedWeight>(copy, "grouped");
  });
}

Weights streamed_dense(const benchmark::State& state) {
  const at::Tensor weight = made_weight(state.range(0), state.range(1), at::kBFloat16);
  return streamed([&] { return std::make_unique<DenseWeight>(weight.clone()); });
}

// range(2) rows of x with each of the weights.
template <typename Product>
void multiply_streamed(benchmark::State& state, const Weights& weights, const Product& product) {
  const at::Tensor x = made_weight(state.range(2), state.range(1), at::kBFloat16);
  at::Tensor y = at::zeros({x.size(0), state.range(0)}, at::kBFloat16);
  int64_t bytes = 0;
  for (const auto& weight : weights) bytes += weight->bytes();
  for (auto _ : state)
    for (const auto& weight : weights) product(*weight, x, y);
  state.SetBytesProcessed(state.iterations() * bytes);
  state.counters["threads"] = num_threads();
}

void multiply_few(const FrozenWeight& weight, const at::Tensor& x, at::Tensor& y) {
  multiply_few_rows({&weight}, x, false, y);
}

void few_rows_nf4(benchmark::State& state) {
  multiply_streamed(state, streamed_nf4(state), multiply_few);
}

void few_rows_grouped(benchmark::State& state, int bits, bool scattered) {
  multiply_streamed(state, streamed_grouped(state, bits, scattered), multiply_few);
}

void few_rows_bfloat16(benchmark::State& state) {
  multiply_streamed(state, streamed_dense(state), multiply_few);
}

// The way of many rows: dequantized, then multiplied by a matrix library.
void dequantize_and_multiply_nf4(benchmark::State& state) {
  at::Tensor rows = at::empty({state.range(0), state.range(1)}, at::kBFloat16);
  multiply_streamed(state, streamed_nf4(state),
                    [&](const FrozenWeight& weight, const at::Tensor& x, at::Tensor& y) {
                      weight.dequantize_rows(0, 0, rows.size(0), rows);
                      at::mm_out(y, x, rows.t());
                    });
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

// [out, in, rows of x]: a projection of SmolLM2 135M, and of an 8B model.
void few_rows(benchmark::internal::Benchmark* benchmark) {
  for (const int64_t tokens : {1, 2, 4, 8})
    benchmark->Args({1536, 576, tokens})->Args({4096, 4096, tokens});
  benchmark->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK(read_memory)->UseRealTime();
BENCHMARK(few_rows_nf4)->Apply(few_rows);
BENCHMARK_CAPTURE(few_rows_grouped, 4_bit, 4, false)->Apply(few_rows);
BENCHMARK_CAPTURE(few_rows_grouped, 8_bit, 8, false)->Apply(few_rows);
BENCHMARK_CAPTURE(few_rows_grouped, 3_bit, 3, false)->Apply(few_rows);
BENCHMARK_CAPTURE(few_rows_grouped, 4_bit_act_order, 4, true)->Apply(few_rows);
BENCHMARK(dequantize_and_multiply_nf4)->Apply(few_rows);
BENCHMARK(few_rows_bfloat16)->Apply(few_rows);
BENCHMARK(copy_panel)->Apply(panels);
BENCHMARK(fill_panel)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, bfloat16, at::kBFloat16, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, bfloat16_double_quant, at::kBFloat16, true)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, float16, at::kHalf, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_panel, float32, at::kFloat, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 4_bit_bfloat16, 4, at::kBFloat16, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 4_bit_float32, 4, at::kFloat, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 8_bit_bfloat16, 8, at::kBFloat16, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 8_bit_float32, 8, at::kFloat, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 3_bit_bfloat16, 3, at::kBFloat16, false)->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 4_bit_act_order_bfloat16, 4, at::kBFloat16, true)
    ->Apply(panels);
BENCHMARK_CAPTURE(dequantize_grouped_panel, 2_bit_bfloat16, 2, at::kBFloat16, false)->Apply(panels);
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

QLORA_SHORT_WAITS

int main(int argc, char** argv) {
  qlora::quant::register_decoders();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

// Training steps of a whole model beside their floor: the frozen linear layers' forward products
// and input gradients and the head's, on ready 16-bit weights, and with recomputation the forward
// products again. Steps and floors alternate in one process. Of a row of a model with an encoder
// half of the tokens are its source, the others its labels.
//
//   build/bin/bench_train_step --model models/SmolLM2-135M-Instruct.Q4_1.gguf --sequence 512
//
// Prints a line of JSON a setting, and before it with --profile where the time of the steps went by
// stages, with --kernels by kernels (kernel_times.h).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>

#include "base/arena_allocator.h"
#include "base/device.h"
#include "base/device_memory.h"
#include "base/profile.h"
#include "base/seed.h"
#include "base/short_waits.h"
#include "base/stopwatch.h"
#include "bench/kernel_times.h"
#include "bench/made_model.h"
#include "io/atomic_write.h"
#include "lora/expert_names.h"
#include "model/expert_targets.h"
#include "model/load.h"
#include "model/made_weights.h"
#include "optim/grad_clip.h"
#include "recipes/models/compute_dtype.h"
#include "trainer/train_step.h"

namespace qlora::bench {
namespace {

struct Setting {
  std::string model = "135m", quantization = "nf4", dtype = "auto", device = "cpu", trace;
  int64_t sequence = 512, batch = 1, rank = 16, steps = 8;
  int threads = 2;
  model::RecomputedLayers recompute;
  bool profile = false, kernels = false, arena = true, floor = true;
};

// Of one row, or of a step: what an encoder reads, and what the decoder reads.
struct TokenCounts {
  int64_t encoded, decoded;
};

TokenCounts tokens_of_row(const Setting& s, const model::Architecture& a) {
  const int64_t encoded = a.has_encoder() ? s.sequence / 2 : 0;
  return {encoded, s.sequence - encoded};
}

std::vector<data::TokenId> random_tokens(int64_t count, uint64_t key, int64_t vocab) {
  std::vector<data::TokenId> tokens;
  for (int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<data::TokenId>(
        3 + uniform_integer(key, static_cast<uint64_t>(i), static_cast<uint64_t>(vocab - 3))));
  return tokens;
}

// Rows of random tokens, all of them supervised but sources and what a decoder starts with.
std::vector<data::Example> random_rows(const Setting& s, const model::Architecture& a) {
  constexpr uint64_t kRows = 16;
  const TokenCounts counts = tokens_of_row(s, a);
  std::vector<data::Example> rows;
  for (uint64_t r = 0; r < kRows; ++r) {
    data::Example row;
    row.tokens = random_tokens(counts.decoded, r, a.vocab_size);
    if (a.has_encoder()) {
      row.tokens.insert(row.tokens.begin(), a.decoder_tokens.start);
      row.encoded = random_tokens(counts.encoded, kRows + r, a.vocab_size);
    }
    row.supervised.assign(row.tokens.size(), 1);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::unique_ptr<model::CausalLm> load(const Setting& s) {
  model::ModelOptions options;
  quant::QuantizationOptions quantization;
  quantization.method = s.quantization;
  const bool is_made = s.model.ends_with(".json") || !std::filesystem::exists(s.model);
  const auto source =
      is_made ? model::made_weights(shape_named(s.model)) : model::open_weights(s.model);
  const c10::Device device = device_from_string(s.device);
  auto model = model::load_model(*source, options, quantization, device,
                                 recipes::compute_dtype_of(s.dtype, device));
  model->narrow_gates = recipes::keeps_narrow_gates(s.dtype, device);
  return model;
}

// The products of one step that no implementation can leave out.
class Floor {
 public:
  Floor(const model::CausalLm& model, const Setting& s)
      : recompute_(s.recompute),
        options_(at::TensorOptions().dtype(model.compute_dtype()).device(model.device())) {
    const model::Architecture& c = model.architecture();
    const TokenCounts row = tokens_of_row(s, c);
    const int64_t encoded = s.batch * row.encoded, decoded = s.batch * row.decoded;
    add(c.encoder, encoded, encoded);
    add(c.decoder, decoded, encoded);
    constexpr int64_t kRows = 256;
    head_ = {random(c.vocab_size, c.head.in), random(kRows, c.head.in),
             random(kRows, c.vocab_size)};
    head_passes_ = (decoded + kRows - 1) / kRows;
  }

  double seconds() const {
    const Stopwatch watch;
    for (size_t layer = 0; layer < kind_of_.size(); ++layer) {
      const std::vector<Product>& products = products_[kind_of_[layer]];
      const bool recomputed = recompute_.contains(static_cast<int64_t>(layer));
      for (size_t i = 0; i < products.size(); ++i) {
        at::mm(products[i].x, products[i].weight.t());
        // A recomputed layer needs no second product of its last matrix.
        if (recomputed && i + 1 < products.size()) at::mm(products[i].x, products[i].weight.t());
        at::mm(products[i].dy, products[i].weight);
      }
    }
    for (int64_t i = 0; i < head_passes_; ++i) {
      at::mm(head_.x, head_.weight.t());
      at::mm(head_.dy, head_.weight);
    }
    synchronize(options_.device());
    return watch.seconds();
  }

 private:
  struct Product {
    at::Tensor weight, x, dy;
  };
  // The layers of a stack that reads `tokens`, and `encoded` tokens by cross-attention.
  void add(const model::StackSpec& stack, int64_t tokens, int64_t encoded) {
    const auto first = static_cast<uint8_t>(products_.size());
    for (const uint8_t kind : stack.kind_of) kind_of_.push_back(static_cast<uint8_t>(first + kind));
    for (const model::BlockSpec& kind : stack.kinds)
      products_.push_back(products_of(kind, tokens, encoded));
  }
  std::vector<Product> products_of(const model::BlockSpec& kind, int64_t tokens,
                                   int64_t encoded) const {
    std::vector<Product> products;
    for (const model::Branch& branch : kind.branches) {
      const bool crosses = branch.attention() && branch.attention()->shape.cross;
      const std::vector<std::vector<model::LinearSpec>> groups = branch.groups();
      for (size_t group = 0; group < groups.size(); ++group)
        for (const model::LinearSpec& linear : groups[group]) {
          // The second group of cross-attention reads what the encoder gives.
          const int64_t read = crosses && group == 1 ? encoded : tokens;
          products.push_back(product_of(linear, rows_of(linear, branch, read)));
        }
    }
    return products;
  }
  // An expert gets its share of the tokens.
  static int64_t rows_of(const model::LinearSpec& linear, const model::Branch& branch,
                         int64_t tokens) {
    if (!lora::expert_name(linear.names.hugging_face)) return tokens;
    return tokens * branch.experts()->routing.active / branch.experts()->routing.experts;
  }
  Product product_of(const model::LinearSpec& linear, int64_t rows) const {
    return {random(linear.out, linear.in), random(rows, linear.in), random(rows, linear.out)};
  }
  at::Tensor random(int64_t rows, int64_t columns) const {
    return at::empty({rows, columns}, options_).normal_(0.0, 0.02);
  }

  model::RecomputedLayers recompute_;
  at::TensorOptions options_;
  std::vector<uint8_t> kind_of_;                // of each layer, through both stacks
  std::vector<std::vector<Product>> products_;  // of each kind of both
  Product head_;
  int64_t head_passes_ = 0;
};

// Time on the processors, for machines that others use too.
double processor_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

// Of three steps each: stages with --profile, kernels with --kernels.
void print_profiles(const Setting& s, c10::Device device, const std::function<void()>& step) {
  const auto steps = [&] {
    for (int64_t i = 0; i < 3; ++i) step();
  };
  if (s.profile) {
    start_profile(
        device.is_cpu() ? std::function<void()>() : [device] { synchronize(device); },
        device.is_cpu() && s.threads == 1 ? ProfileClock::kProcessor : ProfileClock::kWall);
    steps();
    stop_profile();
    fmt::print("{}", profile_table());
    if (!s.trace.empty()) io::write_file_atomically(s.trace, chrome_trace());
  }
  if (!s.kernels) return;
  std::fflush(stdout);  // LibTorch's profiler may end a process whose driver it does not know
  fmt::print("{}", kernel_table(kernel_times(device, steps)));
}

void run(const Setting& s) {
  if (s.arena) use_arena_for_cpu_tensors();
  grow_gpu_segments();
  set_num_threads(s.threads);
  const Stopwatch since_start;
  const auto model = load(s);
  const c10::Device device = model->device();
  lora::LoraOptions lora;
  lora.rank = s.rank;
  lora.alpha = static_cast<double>(s.rank);
  model::resolve_expert_targets(model->architecture(), lora);
  lora::AdapterSet adapters(lora, model->groups(), model->compute_dtype(), 1);
  std::vector<optim::Parameter> parameters;
  for (const lora::AdapterTensor& tensor : adapters.tensors())
    parameters.push_back({.name = tensor.name, .value = tensor.value, .gradient = tensor.gradient});
  optim::OptimizerOptions optimizer_options;
  optimizer_options.name = "paged_adamw_8bit";
  const auto optimizer = optim::make_optimizer(optimizer_options, parameters);
  data::LoaderOptions loader_options;
  loader_options.sequence_length = s.sequence;
  loader_options.packing = false;
  loader_options.micro_batch_size = s.batch;
  data::Loader loader(random_rows(s, model->architecture()), loader_options);
  trainer::TrainState state;
  state.choices.recompute_layers = s.recompute;
  trainer::TrainJob job{
      *model, adapters, *optimizer, parameters, optim::LrSchedule(optimizer_options, 100),
      loader, state};
  const double load_seconds = since_start.seconds();

  const auto step = [&] {
    const Stopwatch watch;
    const double loss = trainer::accumulate_gradients(job, loader.next()).value;
    const auto norm = optim::gradient_norm(adapters.gradients(), 1.0);
    optimizer->step(1e-4, norm.scale);
    adapters.publish();
    synchronize(device);
    return std::pair(watch.seconds(), loss);
  };
  const double first_loss = step().second;
  step();
  const double after_two = static_cast<double>(resident_bytes());
  std::vector<double> times, floors;
  for (int64_t i = 0; i < s.steps; ++i) times.push_back(step().first);
  const auto peak = static_cast<double>(taken_memory_bytes(device));
  const TensorMemory tensors = peak_tensor_memory(device);
  print_profiles(s, device, [&] { step(); });
  double ratio = 0, processor_ratio = 0, processor_step = 0;
  if (s.floor) {
    const Floor floor(*model, s);
    floor.seconds();
    std::vector<double> shares, processor_shares, processor_steps;
    for (int64_t i = 0; i < s.steps; ++i) {
      const double begin = processor_seconds();
      floors.push_back(floor.seconds());
      const double middle = processor_seconds();
      shares.push_back(floors.back() / step().first);
      processor_steps.push_back(processor_seconds() - middle);
      processor_shares.push_back((middle - begin) / processor_steps.back());
    }
    ratio = median(shares);
    processor_ratio = median(processor_shares);
    processor_step = median(processor_steps);
  }
  const auto tokens = static_cast<double>(s.batch * s.sequence);
  fmt::print(
      "{{\"model\":\"{}\",\"device\":\"{}\",\"quantization\":\"{}\",\"batch\":{},\"sequence\":{},"
      "\"source_tokens\":{},\"recompute\":{},"
      "\"dtype\":\"{}\",\"threads\":{},\"tokens_per_second\":{:.1f},\"step_seconds\":{:.4f},"
      "\"floor_seconds\":{:.4f},\"share_of_floor\":{:.3f},\"processor_step_seconds\":{:.4f},"
      "\"processor_share_of_floor\":{:.3f},\"peak_mb\":{:.0f},\"resident_mb\":{:.0f},"
      "\"tensors_mb\":{:.0f},\"held_mb\":{:.0f},"
      "\"load_seconds\":{:.2f},\"first_loss\":{:.4f}}}\n",
      s.model, device.str(), s.quantization, s.batch, s.sequence,
      tokens_of_row(s, model->architecture()).encoded,
      s.recompute.count(model->architecture().num_layers()), c10::toString(model->compute_dtype()),
      s.threads, tokens / median(times), median(times), floors.empty() ? 0.0 : median(floors),
      ratio, processor_step, processor_ratio, peak / 1e6, after_two / 1e6,
      static_cast<double>(tensors.used) / 1e6, static_cast<double>(tensors.held) / 1e6,
      load_seconds, first_loss);
}

}  // namespace
}  // namespace qlora::bench

QLORA_SHORT_WAITS

int main(int argc, char** argv) {
  CLI::App app("Training steps beside their floor");
  qlora::bench::Setting s;
  app.add_option("--model", s.model,
                 "file, directory, or for made weights 135m, 360m, 0.6b, 1.7b, 3b, 8b or a "
                 "config.json");
  app.add_option("--quantization", s.quantization, "nf4, fp4, int8, int8_weight_only, none");
  app.add_option("--dtype", s.dtype, "of the products; auto as train.compute_dtype");
  app.add_option("--device", s.device, "cpu, cuda or cuda:N");
  app.add_option("--sequence", s.sequence,
                 "tokens a row; of a model with an encoder half of them are its source, the others "
                 "its labels");
  app.add_option("--batch", s.batch, "rows a step");
  app.add_option("--rank", s.rank, "of the adapters");
  app.add_option("--steps", s.steps, "timed steps");
  app.add_option("--threads", s.threads, "CPU threads");
  int64_t recomputed = 0;
  app.add_option("--recompute", recomputed, "gradient checkpointing: all layers, or the first N")
      ->expected(0, 1)
      ->default_str("-1");
  app.add_flag("--profile", s.profile, "where the time goes");
  app.add_option("--trace", s.trace, "with --profile: a Chrome trace");
  app.add_flag("--kernels", s.kernels, "the kernels of a GPU, and the gaps between them");
  app.add_flag("!--no-arena", s.arena, "the C library's allocator");
  app.add_flag("!--no-floor", s.floor, "steps alone");
  CLI11_PARSE(app, argc, argv);
  s.recompute = recomputed < 0 ? qlora::model::RecomputedLayers(true)
                               : qlora::model::RecomputedLayers::first(recomputed);
  qlora::bench::run(s);
  return 0;
}

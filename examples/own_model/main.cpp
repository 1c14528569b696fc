// QLoRA of a model of one's own: a small GPT whose linear layers are the library's groups. Its
// weights go from a 16-bit file into 4 or 8 bit one tensor at a time; adapters are attached by
// pattern and trained; a checkpoint is resumed; the quantized model is saved and loaded as it lies
// there; blocks in host memory or on disk are fetched when they are used.
//
//   own_model DIRECTORY [WEIGHTS [METHOD]]
//       WEIGHTS: .safetensors, pytorch_model.bin, or a directory of either; without it, made ones
//                are written to DIRECTORY first
//       METHOD:  nf4 (default) or int8
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/CPUAllocator.h>
#include <signal.h>

#include <cmath>
#include <exception>
#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/seed.h"
#include "io/spill_file.h"
#include "io/weight_directory.h"
#include "lora/attach.h"
#include "model/base_hash.h"
#include "model/read_tensor.h"
#include "optim/grad_clip.h"
#include "quant/offload/offloaded_weight.h"
#include "quant/read_frozen_weight.h"
#include "quant/tensor_file.h"
#include "trainer/checkpoint.h"
#include "trainer/loss.h"
#include "trainer/optimizer_parameters.h"

namespace {
using namespace qlora;

constexpr int64_t kVocab = 96, kHidden = 64, kHeads = 4, kInner = 256, kBlocks = 2, kTokens = 32;
constexpr int64_t kRows = 4, kSteps = 20, kSavedStep = 10;
constexpr uint64_t kSeed = 1;

// Layers that read the same input, without weights as yet.
lora::LinearGroup empty_group(const std::vector<std::string>& names) {
  std::vector<lora::LoraLinear> layers(names.size());
  for (size_t i = 0; i < names.size(); ++i) layers[i].name = names[i];
  return lora::LinearGroup(std::move(layers));
}

quant::WeightShape shape_of(const std::string& layer) {
  const int64_t out = layer == "lm_head" ? kVocab : layer.ends_with(".up") ? kInner : kHidden;
  return quant::WeightShape::matrix(out, layer.ends_with(".down") ? kInner : kHidden);
}

// Where blocks lie that are not in memory beside the others: {{0, quant::Home::kDisk}}.
using DeviceMap = std::map<int64_t, quant::Home>;

class Gpt {
 public:
  Gpt() {
    add_plain("token_embedding", {kVocab, kHidden});
    add_plain("position_embedding", {kTokens, kHidden});
    add_plain("norm", {kHidden});
    for (int64_t b = 0; b < kBlocks; ++b) {
      const std::string name = name_of(b);
      add_plain(name + ".attention_norm", {kHidden});
      add_plain(name + ".mlp_norm", {kHidden});
      add_group({name + ".q", name + ".k", name + ".v"});
      add_group({name + ".o"});
      add_group({name + ".up"});
      add_group({name + ".down"});
    }
  }

  // What adapters are attached to.
  lora::TrainableParts parts() {
    std::vector<lora::LinearGroup*> groups;
    for (const auto& group : groups_) groups.push_back(group.get());
    lora::TrainableParts parts(groups);
    parts.head = &head_;
    return parts;
  }
  std::vector<lora::LoraLinear*> layers() {
    std::vector<lora::LoraLinear*> all;
    for (lora::LinearGroup* group : parts().all_groups())
      for (lora::LoraLinear& layer : group->layers()) all.push_back(&layer);
    return all;
  }

  // On a GPU the last argument of read_frozen_weight() says which; `directory` takes what the map
  // has on disk.
  void load(const io::TensorFile& file, const quant::QuantizationOptions& options,
            const DeviceMap& map = {}, const std::string& directory = "") {
    if (!map.empty())
      offload_ =
          std::make_shared<quant::Offload>(at::kCPU, std::make_shared<io::SpillFile>(directory, 0));
    for (lora::LoraLinear* layer : layers()) {
      layer->base =
          quant::read_frozen_weight(file, layer->name, shape_of(layer->name), options, at::kCPU);
      const auto home = map.find(block_of(layer->name));
      if (home != map.end())
        layer->base = std::make_unique<quant::OffloadedWeight>(std::move(layer->base), offload_,
                                                               home->first, home->second);
    }
    for (auto& [name, tensor] : plain_)
      tensor = model::read_tensor(file.at(name + ".weight"), tensor.sizes().vec(), at::kFloat);
  }
  // Weights to begin with, where there are none: linear layers in bfloat16.
  void draw_weights() {
    at::manual_seed(kSeed);
    for (lora::LoraLinear* layer : layers()) {
      const quant::WeightShape shape = shape_of(layer->name);
      const at::Tensor weight = at::randn(shape.sizes()) / std::sqrt(static_cast<double>(shape.in));
      layer->base = std::make_unique<quant::DenseWeight>(weight.to(at::kBFloat16));
    }
    for (auto& [name, tensor] : plain_)
      tensor = tensor.dim() == 1 ? at::ones(tensor.sizes()) : at::randn(tensor.sizes());
  }
  // Every frozen tensor by its name in a file.
  quant::NamedTensors state() {
    quant::NamedTensors all;
    for (const auto& [name, tensor] : plain_) all.emplace_back(name + ".weight", tensor);
    for (const lora::LoraLinear* layer : layers())
      quant::add_frozen_weight(all, layer->name, *layer->base);
    return all;
  }

  // fp32 [tokens, hidden], which the head reads.
  at::Tensor hidden(const std::vector<int32_t>& tokens, const lora::ForwardContext& context) const {
    const at::Tensor ids = at::tensor(at::ArrayRef<int32_t>(tokens), at::kLong);
    at::Tensor x = plain_.at("token_embedding").index_select(0, ids) +
                   plain_.at("position_embedding").narrow(0, 0, ids.size(0));
    for (int64_t b = 0; b < kBlocks; ++b) {
      const auto* group = &groups_[static_cast<size_t>(4 * b)];  // of q k v, o, up, down
      const auto qkv = group[0]->forward(normed(x, name_of(b) + ".attention_norm"), context);
      x = x + group[1]->forward(attend(qkv[0], qkv[1], qkv[2]), context)[0];
      const at::Tensor up = group[2]->forward(normed(x, name_of(b) + ".mlp_norm"), context)[0];
      x = x + group[3]->forward(at::gelu(up), context)[0];
    }
    return normed(x, "norm");
  }
  const lora::LinearGroup& head() const { return head_; }

 private:
  static std::string name_of(int64_t block) { return fmt::format("blocks.{}", block); }
  // -1: the head, which is in none.
  static int64_t block_of(const std::string& layer) {
    for (int64_t b = 0; b < kBlocks; ++b)
      if (layer.starts_with(name_of(b) + ".")) return b;
    return -1;
  }

  void add_group(const std::vector<std::string>& names) {
    groups_.push_back(std::make_unique<lora::LinearGroup>(empty_group(names)));
  }
  // A shape without memory.
  void add_plain(const std::string& name, at::IntArrayRef shape) {
    plain_[name] = at::empty(shape, at::TensorOptions().device(at::kMeta));
  }

  at::Tensor normed(const at::Tensor& x, const std::string& norm) const {
    return x * at::rsqrt(x.square().mean(-1, true) + 1e-6) * plain_.at(norm);
  }

  static at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const int64_t tokens = q.size(0), size = kHidden / kHeads;
    const auto heads = [&](const at::Tensor& x) {  // [heads, tokens, size]
      return x.reshape({tokens, kHeads, size}).transpose(0, 1);
    };
    const at::Tensor later = at::ones({tokens, tokens}, at::kBool).triu(1);
    const at::Tensor scores =
        at::matmul(heads(q), heads(k).transpose(1, 2)) / std::sqrt(static_cast<double>(size));
    const at::Tensor shares =
        at::softmax(scores.masked_fill(later, -std::numeric_limits<double>::infinity()), -1);
    return at::matmul(shares, heads(v)).transpose(0, 1).reshape({tokens, kHidden});
  }

  std::shared_ptr<quant::Offload> offload_;
  std::map<std::string, at::Tensor> plain_;  // embeddings and norms, by module
  std::vector<std::unique_ptr<lora::LinearGroup>> groups_;
  lora::LinearGroup head_ = empty_group({"lm_head"});
};

// What trains a model whose weights are in place; both stay where they are.
class Training {
 public:
  explicit Training(Gpt& model)
      : model_(model), adapters_(lora_, model.parts(), at::kFloat, kSeed) {
    optim_.lr = 5e-3;
    optimizer_ =
        optim::make_optimizer(optim_, trainer::optimizer_parameters(adapters_, lora_, optim_));
    model::BaseHasher hasher;
    hasher.add(model.state());
    base_.hash = state_.base_hash = hasher.hex();
  }
  Training(const Training&) = delete;

  double step() {
    lora::ForwardContext context{.workspace = &workspace_, .training = true};
    adapters_.zero_gradients();
    double loss = 0;
    for (int64_t row = 0; row < kRows; ++row) {
      context.dropout_key = random_key(kSeed, static_cast<uint64_t>(kRows * state_.step + row));
      const std::vector<int32_t> tokens = made_row(static_cast<int32_t>(row));
      std::vector<int32_t> targets(tokens.begin() + 1, tokens.end());
      targets.push_back(-100);  // not trained
      const double scale = 1.0 / static_cast<double>(kRows * (kTokens - 1));
      const at::Tensor part = trainer::fused_cross_entropy(model_.hidden(tokens, context), targets,
                                                           model_.head(), scale, context);
      part.backward();
      loss += part.item<double>();
    }
    const auto norm = optim::gradient_norm(adapters_.gradients(), optim_.max_grad_norm);
    optimizer_->step(optim::LrSchedule(optim_, kSteps).at(state_.step++), norm.scale);
    adapters_.publish();
    return loss;
  }

  at::Tensor logits() {
    const at::NoGradGuard no_grad;
    const lora::ForwardContext context{.workspace = &workspace_};
    return model_.head().forward(model_.hidden(made_row(1), context), context)[0];
  }

  void save(const std::string& run) { trainer::save_checkpoint(run, parts()); }
  void load(const std::string& checkpoint) {
    trainer::load_checkpoint(checkpoint, parts());
    check(state_.base_hash == base_.hash, "{} was trained on other weights", checkpoint);
  }

 private:
  // Each token follows from the one before it.
  static std::vector<int32_t> made_row(int32_t token) {
    std::vector<int32_t> row;
    for (; std::ssize(row) < kTokens; token = (token * 5 + 7) % kVocab) row.push_back(token);
    return row;
  }
  static lora::LoraOptions lora_options() {
    lora::LoraOptions options;
    options.rank = 8;
    options.dropout = 0.05;
    options.targets = {R"(blocks\.\d+\.(q|v|up|down))"};
    return options;
  }
  trainer::CheckpointParts parts() { return {adapters_, lora_, base_, *optimizer_, state_}; }

  Gpt& model_;
  lora::LoraOptions lora_ = lora_options();
  optim::OptimizerOptions optim_;  // paged_adamw_8bit, cosine
  lora::AdapterSet adapters_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  lora::AdapterBase base_;
  trainer::TrainState state_;
  quant::Workspace workspace_;
};

void require(bool holds, const char* what) {
  fmt::print("{}: {}\n", what, holds ? "yes" : "NO");
  if (!holds) throw Error(what);
}

// What a library could change for the whole process.
struct ProcessState {
  int threads = at::get_num_threads();
  c10::Allocator* allocator = c10::GetCPUAllocator();
  void (*on_interrupt)(int) = handler_of(SIGINT);
  bool operator==(const ProcessState&) const = default;

  static void (*handler_of(int signal))(int) {
    struct sigaction now {};
    sigaction(signal, nullptr, &now);
    return now.sa_handler;
  }
};

void run(const std::string& directory, std::string weights, const std::string& method) {
  const ProcessState before;
  const auto in = [&](const std::string& name) { return directory + "/" + name; };
  std::filesystem::create_directories(directory);
  std::filesystem::remove_all(in("run"));
  if (weights.empty()) {
    Gpt made;
    made.draw_weights();
    quant::write_tensors(weights = in("made.safetensors"), made.state());
  }
  quant::QuantizationOptions options;
  options.method = method;
  options.skip_modules = {"lm_head", "blocks.0.o"};  // stay in 16 bit
  options.validate();

  Gpt model;
  model.load(io::read_weights(weights), options);
  Training training(model);
  std::vector<double> losses;
  for (int64_t step = 0; step < kSteps; ++step) {
    if (step == kSavedStep) training.save(in("run"));
    losses.push_back(training.step());
  }
  training.save(in("run"));
  fmt::print("loss {:.4f} at the first step, {:.4f} at the last\n", losses.front(), losses.back());
  require(losses.back() < losses.front(), "the loss falls");

  Gpt same;
  same.load(io::read_weights(weights), options);
  Training resumed(same);
  resumed.load(in("run/" + trainer::checkpoint_name(kSavedStep)));
  bool repeats = true;
  for (int64_t step = kSavedStep; step < kSteps; ++step)
    repeats &= resumed.step() == losses[static_cast<size_t>(step)];
  require(repeats, "a resumed run repeats the losses, bit for bit");

  quant::write_tensors(in("quantized.safetensors"), model.state());
  Gpt again;
  again.load(io::read_weights(in("quantized.safetensors")), {});  // {}: as stored
  Training loaded(again);
  loaded.load(in("run/" + trainer::checkpoint_name(kSteps)));
  fmt::print("saved quantized: {} bytes\n",
             std::filesystem::file_size(in("quantized.safetensors")));
  require(at::equal(loaded.logits(), training.logits()), "loaded quantized: the same logits");

  Gpt elsewhere;
  elsewhere.load(io::read_weights(weights), options,
                 {{0, quant::Home::kDisk}, {1, quant::Home::kHost}}, directory);
  Training fetching(elsewhere);
  bool equal = true;
  for (int64_t step = 0; step < kSavedStep; ++step)
    equal &= fetching.step() == losses[static_cast<size_t>(step)];
  require(equal, "blocks on disk and in host memory: the same losses, bit for bit");
  require(ProcessState() == before, "threads, allocator, handler of SIGINT: as before");
}

}  // namespace

int main(int argc, char** argv) {
  try {
    check(argc >= 2 && argc <= 4, "usage: own_model DIRECTORY [WEIGHTS [METHOD]]");
    run(argv[1], argc > 2 ? argv[2] : "", argc > 3 ? argv[3] : "nf4");
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "own_model: {}\n", error.what());
    return 1;
  }
}

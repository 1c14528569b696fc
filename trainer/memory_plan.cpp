#include "trainer/memory_plan.h"

#include <algorithm>
#include <array>

#include "base/device.h"
#include "base/error.h"
#include "lora/weight_init.h"
#include "model/attention_routes.h"
#include "model/block_memory.h"
#include "optim/optimizer.h"
#include "quant/offload/panel_weight.h"
#include "trainer/gradient_sum.h"
#include "trainer/loss.h"
#include "trainer/planned_adapters.h"
#include "trainer/planned_base.h"
#include "trainer/rank_plan.h"

namespace qlora::trainer {
namespace {

constexpr int64_t kFloat = 4;
// Resident beside all tensors: the program, LibTorch as far as it is used, and what oneDNN compiles
// and keeps; with 8-bit products it keeps a kernel for each number of outlier columns (measured).
constexpr int64_t kCpuRuntime = 140'000'000, kEightBitRuntime = 55'000'000;
// What micro-batches of ever other lengths add to that in the first ten steps: a heap in pieces,
// more of them where experts have ever other numbers of rows, and where 16-bit products go to
// oneDNN more of its kernels (measured; with outlier columns of 8-bit products it goes on growing).
constexpr int64_t kOtherLengths = 15'000'000, kExpertsOtherLengths = 40'000'000,
                  kOneDnnOtherLengths = 100'000'000, kEightBitOtherLengths = 140'000'000;
// Of a GPU: its context with the kernels (measured on an H100 with CUDA 13), and cuBLAS's
// workspaces of the program's and of autograd's thread. A program with these kernels takes more on
// a CPU, too.
constexpr int64_t kGpuRuntime = 860'000'000, kGpuWorkspaces = 2 * (32 << 20),
                  kCudaProgram = 195'000'000;
// Of the buffers of a step, what lies between them unused where sizes alternate: where recomputed
// layers make its peak, or with 8-bit products; and else (measured).
constexpr double kGapsAlternating = 0.08, kGaps = 0.01, kGpuGaps = 0.05;
constexpr int64_t kEvaluationTokens = 2048;  // evaluate.h
constexpr int64_t kDecodedPiece = 4 << 20;   // read_tensor.cpp

int64_t bytes_of(at::ScalarType type) { return static_cast<int64_t>(c10::elementSize(type)); }

class Planner {
 public:
  explicit Planner(const PlannedRun& run)
      : run_(run),
        a_(run.architecture),
        compute_bytes_(bytes_of(run.compute)),
        tokens_(of_a_stack(run.tokens())),
        length_(of_a_stack(run.sequence_length)) {
    check(run.weight != nullptr && tokens_ > 0, "plan_memory: nothing to plan for");
    plan_.on_gpu = run.on_gpu;
    base_ = planned_base(run);
    adapters_ = planned_adapters(run);
  }

  MemoryPlan plan() {
    add_base();
    add_adapters();
    add_gradient_sums();
    add_optimizer();
    add_activations();
    add_loss();
    add_evaluation();
    if (run_.on_gpu)
      add("tokenizer and data", run_.host_bytes, Phase::kHost);
    else
      add_loaded("tokenizer and data", run_.host_bytes);
    const int64_t cpu_runtime = kCpuRuntime + (base_.products.in_int32 ? kEightBitRuntime : 0) +
                                (cuda_available() ? kCudaProgram : 0);
    add_loaded("run-time libraries", run_.on_gpu ? kGpuRuntime : cpu_runtime);
    if (run_.on_gpu) add("cuBLAS's workspaces", kGpuWorkspaces, Phase::kTraining);
    if (!run_.on_gpu) add("kernels for other lengths", other_lengths(), Phase::kAlways);
    add_gaps();
    return plan_;
  }

 private:
  void add(const char* purpose, int64_t bytes, Phase phase) {
    if (bytes > 0) plan_.lines.push_back({purpose, bytes, phase});
  }
  void add_loaded(const char* purpose, int64_t bytes) {
    if (bytes > 0) plan_.lines.push_back({purpose, bytes, Phase::kAlways, true});
  }

  // With an encoder a row is a source and an answer, taken to be as long.
  int64_t of_a_stack(int64_t tokens) const { return a_.has_encoder() ? (tokens + 1) / 2 : tokens; }

  void add_base();
  void add_loading(int64_t matrix);
  void add_elsewhere();
  int64_t head_copy_bytes() const;
  int64_t adapter_bytes() const { return adapters_.numbers() * kFloat + adapters_.dora_norm_bytes; }
  int64_t gradient_bytes() const { return adapters_.numbers() * kFloat; }
  int64_t product_copy_bytes() const {
    return run_.compute == at::kFloat ? 0 : adapters_.numbers_in_products * compute_bytes_;
  }
  void add_adapters();
  void add_gradient_sums();
  void add_optimizer();
  void add_activations();
  void add_loss();
  void add_evaluation();
  void add_gaps();
  int64_t other_lengths() const {
    if (base_.products.in_int32) return kEightBitOtherLengths;
    if (base_.products.in_library) return kOneDnnOtherLengths;
    return has_experts() ? kExpertsOtherLengths : kOtherLengths;
  }
  bool has_experts() const {
    for (int64_t layer = 0; layer < a_.num_layers(); ++layer)
      for (const model::Branch& branch : a_.block(layer).branches)
        if (branch.experts()) return true;
    return false;
  }
  model::PassShape pass(int64_t tokens, int64_t longest) const;
  // Of the micro-batch, with the adapters of this layer.
  model::PassShape layer_pass(int64_t layer) const;
  // The most that any block takes.
  int64_t most_of_blocks(int64_t (*bytes)(const model::BlockSpec&, const model::PassShape&),
                         const model::PassShape& pass) const;

  const PlannedRun& run_;
  const model::Architecture& a_;
  int64_t compute_bytes_;
  int64_t tokens_, length_;  // that a layer is given
  PlannedBase base_;
  PlannedAdapters adapters_;
  bool recomputation_is_fullest_ = false;  // of a step's moments
  int64_t gradient_copies_ = 0;            // bytes on the device; they leave no gaps
  MemoryPlan plan_;
};

void Planner::add_base() {
  add_loaded("base weights", base_.weights);
  add_loaded("quantization scales", base_.scales);
  add_elsewhere();
  add_loaded("embedding, head, norms, biases", base_.outer + base_.norms + base_.biases);
  int64_t panel = base_.products.decoded_bytes;
  if (run_.model.upcast != "all") panel = std::max(panel, head_copy_bytes());
  add("dequantization panel", panel, Phase::kTraining);
  // A linear layer's matrix as it was read, in another order, and the pages of its file, beside
  // what becomes of it; or those pages of the embedding, which comes first.
  const int64_t dtype_bytes = bytes_of(planned_dtype(run_));
  const int64_t first =
      a_.vocab_size * a_.embedding.width * dtype_bytes - base_.weights - base_.scales;
  // Initialisations that change the base work in float32: the matrix, what quantizing lost of it,
  // and two of its factors' products.
  const int64_t element = lora::init_changes_base(run_.lora.init) ? 4 * kFloat : 3 * dtype_bytes;
  add_loading(std::max(base_.largest * element, first) + kDecodedPiece);
}

// One matrix of the base is loaded after the other, and then a given adapter, when the adapters
// that it fills are there.
void Planner::add_loading(int64_t matrix) {
  const int64_t given = run_.adapter_reading_bytes;
  const int64_t filled = adapter_bytes() + gradient_bytes() + product_copy_bytes();
  if (run_.on_gpu) add("a given adapter while it is read", given, Phase::kHost);
  if (run_.on_gpu || given == 0 || given + filled <= matrix)
    add("a matrix while it is loaded", matrix, Phase::kLoading);
  else
    add("a given adapter while it is read, and the adapters", given + filled, Phase::kLoading);
}

void Planner::add_elsewhere() {
  const Elsewhere& elsewhere = base_.elsewhere;
  add("base weights in host memory", elsewhere.host, Phase::kHost);
  add("base weights on disk", elsewhere.disk, Phase::kDisk);
  add_loaded("this rank's part of the base", elsewhere.shards);
  if (elsewhere.shards > 0) {
    add("a block before it is shared", elsewhere.largest_block, Phase::kLoading);
    // Gloo gathers into memory of its own.
    if (!run_.on_gpu) add("a block that is gathered", elsewhere.largest_block, Phase::kAlways);
  }
  // Two at a time are near (quant/offload/offload.h).
  add("blocks fetched from elsewhere",
      std::min<int64_t>(elsewhere.fetched_blocks, 2) * elsewhere.largest_block, Phase::kAlways);
  add("float32 copies for products on the CPU", tokens_ * base_.host_product_width * kFloat,
      run_.on_gpu ? Phase::kHost : Phase::kTraining);
  add("panel of the head", std::min(elsewhere.head_host + elsewhere.head_disk, quant::kPanelBytes),
      Phase::kForward);
}

// Of the head in the type in which it is multiplied, if it lies in memory in another.
int64_t Planner::head_copy_bytes() const {
  quant::ProductFacts head = planned_products(run_);
  head.layers.push_back(
      planned_layer(run_, a_.head, {quant::WeightKind::kStored, planned_dtype(run_)}));
  const int64_t copy = quant::decoded_bytes(head);
  return run_.placement.head == quant::Home::kDevice ? copy : std::min(copy, quant::kPanelBytes);
}

void Planner::add_adapters() {
  add("adapters (float32)", adapter_bytes(), Phase::kAlways);
  add("adapters' gradients (float32)", gradient_bytes(), Phase::kAlways);
  add("adapters' copies for the products", product_copy_bytes(), Phase::kAlways);
}

void Planner::add_gradient_sums() {
  constexpr const char* kEarlier = "gradients of earlier micro-batches";
  const int64_t copies = GradientSum::most_copies(run_.micro_batches_a_rank) * gradient_bytes();
  add(kEarlier, copies, run_.on_gpu ? Phase::kHost : Phase::kAlways);
  if (!run_.on_gpu) gradient_copies_ = copies;
  add("buffers of the ranks' sums", sum_buffer_bytes(adapters_.numbers(), run_.ranks),
      Phase::kAlways);
}

void Planner::add_optimizer() {
  const optim::StateBytes state =
      optim::optimizer_state_bytes(run_.optim, adapters_.parameter_sizes, run_.on_gpu);
  add("optimizer state", state.device, Phase::kAlways);
  add("optimizer state, paged out", state.host, run_.on_gpu ? Phase::kHost : Phase::kAlways);
}

model::PassShape Planner::pass(int64_t tokens, int64_t longest) const {
  model::PassShape pass;
  pass.hidden = a_.hidden_size;
  pass.compute_bytes = compute_bytes_;
  pass.gate_bytes = run_.narrow_gates ? 2 : compute_bytes_;
  pass.dropout = run_.lora.dropout > 0;
  pass.in_eight_bits = base_.products.in_int8;
  pass.in_int32 = base_.products.in_int32;
  pass.sums_onto = base_.products.sums_onto;
  pass.on_gpu = run_.on_gpu;
  const model::AttentionRoute& route =
      model::attention_route(a_.block(0).attention().shape, run_.compute,
                             run_.on_gpu ? at::DeviceType::CUDA : at::DeviceType::CPU);
  pass.flash = !route.holds_scores;
  pass.attends_in_float = route.copies_to_float;
  pass.tokens = tokens;
  pass.longest = std::min(longest, a_.longest_document());
  return pass;
}

model::PassShape Planner::layer_pass(int64_t layer) const {
  model::PassShape result = pass(tokens_, length_);
  result.remakes_inputs = !run_.recompute_layers.contains(layer);
  result.branches = adapters_.blocks[static_cast<size_t>(layer)].branches;
  return result;
}

int64_t Planner::most_of_blocks(int64_t (*bytes)(const model::BlockSpec&, const model::PassShape&),
                                const model::PassShape& pass) const {
  int64_t most = 0;
  for (const model::BlockSpec& block : a_.decoder.kinds) most = std::max(most, bytes(block, pass));
  return most;
}

void Planner::add_activations() {
  const int64_t residual = tokens_ * a_.hidden_size * kFloat;
  // Of the layers that keep their activations, and of those that are recomputed.
  int64_t kept = 0, buffers = 0, inputs = 0, layer_kept = 0, layer_buffers = 0;
  bool differentiated = adapters_.first.trained || adapters_.embeddings.whole_embedding ||
                        !adapters_.embeddings.embedding_ids.empty();
  for (int64_t i = 0; i < a_.num_layers(); ++i) {
    // Below the first trained layer nothing is differentiated.
    differentiated |= adapters_.blocks[static_cast<size_t>(i)].any();
    if (!differentiated) continue;
    const model::BlockSpec& block = a_.block(i);
    const model::PassShape layer = layer_pass(i);
    const int64_t forward = forward_bytes(block, layer), backward = backward_bytes(block, layer);
    if (!run_.recompute_layers.contains(i)) {
      kept += kept_bytes(block, layer);
      buffers = std::max({buffers, forward, backward});
      continue;
    }
    inputs += residual;
    layer_kept = std::max(layer_kept, kept_bytes(block, layer));
    // The layer's input is kept already, but the gradient of its output waits for it, and that
    // output lives as long as it is differentiated.
    layer_buffers = std::max({layer_buffers, forward, backward + residual});
  }
  const model::PassShape any = pass(tokens_, length_);
  int64_t rotary_width = 0;
  for (const model::RotarySpec& rotary : a_.rotaries) rotary_width += rotary.width;
  add("rotary tables and positions", tokens_ * (rotary_width + 2) * kFloat, Phase::kTraining);
  add("attention's buffers", most_of_blocks(model::attention_buffer_bytes, any), Phase::kTraining);
  if (a_.has_encoder())
    add("the encoder's output and its gradient", 2 * tokens_ * a_.hidden_size * compute_bytes_,
        Phase::kTraining);
  add("the last norm's input", residual, Phase::kForward);
  add("activations kept (layers' inputs)", inputs, Phase::kTraining);
  // The backward pass comes to the recomputed layers when the others have freed what they kept.
  if (inputs > 0)
    layer_buffers = std::max(layer_buffers,
                             most_of_blocks(model::graphless_bytes, any) - layer_kept - residual);
  recomputation_is_fullest_ = layer_kept + layer_buffers > kept + buffers;
  if (!recomputation_is_fullest_) {
    add("activations kept", kept, Phase::kTraining);
    add("the backward pass's buffers", buffers, Phase::kBackward);
    return;
  }
  add("activations kept", kept, Phase::kForward);
  add("recomputation of a layer", layer_kept, Phase::kBackward);
  add("the backward pass's buffers", layer_buffers, Phase::kBackward);
}

void Planner::add_loss() {
  const bool wide = run_.model.upcast == "all";
  const int64_t element = wide ? kFloat : compute_bytes_;
  const int64_t rows = std::min(loss_chunk_rows(element), tokens_);
  // The hidden states and their gradient; rows of both while their logits are at hand.
  add("final hidden states", 2 * tokens_ * a_.head.in * element, Phase::kForward);
  const int64_t copies = a_.logit_softcap > 0 ? 2 : 1;  // capped logits beside their gradient
  add("logits chunk", rows * (copies * a_.vocab_size + 2 * a_.head.in) * element, Phase::kForward);
}

void Planner::add_evaluation() {
  if (!run_.evaluates) return;
  const int64_t longest = (run_.pairs ? 2 : 1) * run_.sequence_length;
  const int64_t tokens = of_a_stack(std::max(kEvaluationTokens, longest));
  const int64_t rows = std::min(loss_chunk_rows(compute_bytes_), tokens);
  const model::PassShape any = pass(tokens, length_);
  add("evaluation",
      std::max(most_of_blocks(model::graphless_bytes, any), rows * a_.vocab_size * compute_bytes_),
      Phase::kEvaluation);
}

void Planner::add_gaps() {
  const auto step = static_cast<double>(plan_.bytes_in_step() - gradient_copies_);
  const bool alternating = recomputation_is_fullest_ || base_.products.in_int32;
  const double share = alternating ? kGapsAlternating : run_.on_gpu ? kGpuGaps : kGaps;
  add("gaps between buffers", static_cast<int64_t>(step * share), Phase::kTraining);
}

}  // namespace

const char* name_of(Phase phase) {
  // In the order of the enumeration.
  constexpr std::array kNames = {
      "always",        "loading",    "training", "end of the forward pass",
      "backward pass", "evaluation", "host",     "disk"};
  return kNames.at(static_cast<size_t>(phase));
}

int64_t MemoryPlan::bytes_in(Phase phase) const {
  int64_t bytes = 0;
  for (const MemoryLine& line : lines)
    if (line.phase == phase) bytes += line.bytes;
  return bytes;
}

int64_t MemoryPlan::bytes_in_step() const {
  return bytes_in(Phase::kTraining) +
         std::max(bytes_in(Phase::kForward), bytes_in(Phase::kBackward));
}

int64_t MemoryPlan::loaded_bytes() const {
  int64_t loaded = 0;
  for (const MemoryLine& line : lines)
    if (line.loaded) loaded += line.bytes;
  return loaded;
}

int64_t MemoryPlan::training_peak() const {
  return std::max(loaded_bytes() + bytes_in(Phase::kLoading),
                  bytes_in(Phase::kAlways) + bytes_in_step());
}

int64_t MemoryPlan::peak() const {
  return std::max(training_peak(), bytes_in(Phase::kAlways) + bytes_in(Phase::kEvaluation));
}

int64_t MemoryPlan::after_loading() const { return peak() - loaded_bytes(); }

MemoryPlan plan_memory(const PlannedRun& run) { return Planner(run).plan(); }

}  // namespace qlora::trainer

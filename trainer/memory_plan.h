// Where a run's memory goes, by purpose, before anything is loaded: from the shape of the model and
// the options alone, by the sizes of what the run allocates. With an encoder half of the tokens are
// taken to be sources, half answers.
//
//   peak = the larger of: what is loaded + what loading takes;
//          what is there all the time + the fullest of: the end of the forward pass (all that the
//          backward pass will need, and a chunk of logits), the backward pass, an evaluation
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lora/lora_options.h"
#include "model/architecture.h"
#include "model/model_options.h"
#include "model/placement.h"
#include "model/recomputed_layers.h"
#include "optim/optimizer_options.h"
#include "quant/planned_bytes.h"

namespace qlora::trainer {

// What decides a run's memory.
struct PlannedRun {
  model::Architecture architecture;
  model::ModelOptions model;
  lora::LoraOptions lora;
  optim::OptimizerOptions optim;
  at::ScalarType compute = at::kBFloat16;
  bool on_gpu = false;
  bool narrow_gates = false;  // CausalLm::narrow_gates
  model::RecomputedLayers recompute_layers;
  bool evaluates = false;
  int64_t micro_batch_size = 1, sequence_length = 0;
  bool pairs = false;  // of answers: a micro-batch has two sequences for each of its size
  // How many train together, whose memory each is this plan's, and what of a step each computes.
  int64_t ranks = 1, micro_batches_a_rank = 1;
  int64_t host_bytes = 0;  // of the data and the tokenizer
  // Of a given adapter while it is read, beside the adapters that it fills (lora::reading_bytes()).
  int64_t adapter_reading_bytes = 0;
  // How a linear layer's frozen weight lies in memory, by its module path.
  std::function<quant::WeightBytes(const std::string& module, const model::LinearSpec& linear)>
      weight;
  model::Placement placement = {};  // of the blocks' weights
  double rank_rate = 0;             // bytes a second that reach a rank from the others; 0: unknown

  int64_t sequences() const { return (pairs ? 2 : 1) * micro_batch_size; }
  int64_t tokens() const { return sequences() * sequence_length; }
};

enum class Phase { kAlways, kLoading, kTraining, kForward, kBackward, kEvaluation, kHost, kDisk };
const char* name_of(Phase phase);

struct MemoryLine {
  std::string purpose;
  int64_t bytes = 0;
  // kTraining: in the forward and the backward phase. kHost: in the host's memory, of a run whose
  // peak is the GPU's. kDisk: in no memory.
  Phase phase = Phase::kAlways;
  bool loaded = false;  // there as soon as base and data are
};

struct MemoryPlan {
  std::vector<MemoryLine> lines;
  bool on_gpu = false;

  int64_t bytes_in(Phase phase) const;
  int64_t bytes_in_step() const;  // of training steps, beyond what is there all the time
  int64_t loaded_bytes() const;
  // The whole run's, and that of its training steps and the loading before them.
  int64_t peak() const;
  int64_t training_peak() const;
  // What is yet to come once base and data are loaded.
  int64_t after_loading() const;
};

// ConfigError where the run itself would refuse its options.
MemoryPlan plan_memory(const PlannedRun& run);

}  // namespace qlora::trainer

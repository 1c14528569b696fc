// Fills the adapter slots of a model and owns what is trained: one flat fp32 buffer of masters and
// one of gradients, so that clipping, the optimizer and a later all-reduce see a single tensor.
//
// Initialisation is PEFT's default: A Kaiming-uniform with a = sqrt(5), i.e. U(-1/sqrt(in),
// 1/sqrt(in)); B zero. It is a function of the seed and the module's name alone. What is trained
// whole (whole_modules.h) starts as the frozen values, dequantized where they are quantized.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lora/initial_factors.h"
#include "lora/lora_options.h"
#include "lora/targets.h"
#include "lora/trainable_parts.h"
#include "lora/whole_modules.h"

namespace qlora::lora {

// One trained tensor by its PEFT name: "base_model.model.<module>.lora_A.weight", DoRA's
// ".lora_magnitude_vector", biases (".base_layer.bias" where the module has an adapter), ".weight"
// of modules trained whole, ".token_adapter.trainable_tokens_delta" of trained rows.
struct AdapterTensor {
  std::string name;
  at::Tensor value;         // view of AdapterSet::values
  at::Tensor gradient;      // view of AdapterSet::gradients
  bool transposed = false;  // in files (a Conv1D that is trained whole)
  bool in_turn = false;     // in files: the rows of its halves (an expert's B, rows_in_turn.h)
};

// Empties all slots: the model is then its frozen base. Adapters and what was trained live on in
// the set that made them.
void empty_slots(const TrainableParts& parts);

class AdapterSet {
 public:
  // Attaches to every chosen part; what an earlier set filled is emptied first, so that one set
  // acts on a model at a time. The frozen weights must be in place, of a group's layers with one
  // number of inputs: Error else. `compute` is the products' dtype. `given` wins over options.init
  // where it has the module. ConfigError if a target matches nothing, or two of the options exclude
  // each other (options.validate() is for the caller). When it throws, the model's slots are empty.
  AdapterSet(const LoraOptions& options, const TrainableParts& parts, at::ScalarType compute,
             uint64_t seed, const GivenFactors& given = {});

  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }
  const std::vector<AdapterTensor>& tensors() const { return tensors_; }
  // Second names of tensors in a file (name, then the tensor's own): PEFT writes a matrix that tied
  // embeddings share under both.
  const std::vector<std::pair<std::string, std::string>>& copies() const { return copies_; }
  // Frozen weights that PEFT writes beside an adapter, by their names in the file: of an adapted
  // head.
  const std::vector<std::pair<std::string, const quant::FrozenWeight*>>& frozen_beside() const {
    return frozen_beside_;
  }
  // Whether an adapted layer is a Conv1D (LoraLinear::stored_by_inputs): PEFT's fan_in_fan_out.
  bool fan_in_fan_out() const { return fan_in_fan_out_; }
  // TrainableParts::has_encoder.
  bool has_encoder() const { return has_encoder_; }
  const std::vector<TargetMatch>& matches() const { return matches_; }
  const TrainedEmbeddings& embeddings() const { return embeddings_; }
  const EmbeddingNames& names() const { return names_; }  // of embedding and head
  int64_t num_parameters() const { return values_.numel(); }
  int64_t num_modules() const { return num_modules_; }
  // The adapted modules as PEFT's target_modules, sorted: by last name ("q_proj") where every
  // module of that name is adapted, else by path.
  const std::vector<std::string>& target_modules() const { return target_modules_; }
  // The adapted experts and routers as PEFT's target_parameters, likewise.
  const std::vector<std::string>& target_parameters() const { return target_parameters_; }

  // Casts the masters into the copies the products read and takes the norms of DoRA's rows anew.
  // Call after every change of the masters.
  void publish();
  void zero_gradients() { gradients_.zero_(); }
  // Rounds the masters to what lora.dtype can hold, to nearest: a start, or an adapter that was
  // read. In training the optimizer's rounding does it (optim/round.h).
  void round_to_dtype();

 private:
  // Which layers get what: fills their slots, whose tensors place() makes. Returns how many numbers
  // that takes; they come first in the flat buffers, and are read as `compute` too.
  int64_t fill_slots(const LoraOptions& options, const TrainableParts& parts);
  int64_t count_beside_layers(const TrainableParts& parts) const;
  // The next numbers of the flat buffers as a tensor of this shape.
  TrainedTensor take(at::IntArrayRef shape);
  // What a group's products read of the next numbers.
  at::Tensor next_compute(at::IntArrayRef shape) const;
  void list(const std::string& name, const TrainedTensor& trained);
  void list_rows(const std::vector<std::string>& names, const TrainedTensor& trained);

  // The tensors of a group, and of what lies beside the groups.
  void place_bias(LoraLinear& layer);
  void place_magnitude(LoraLinear& layer);
  void place_trained_weight(LoraLinear& layer);
  void place_factors(const LoraOptions& options, LinearGroup& group, uint64_t seed,
                     const GivenFactors& given);
  void place(const LoraOptions& options, LinearGroup& group, uint64_t seed,
             const GivenFactors& given);
  void place_embedding(const TrainableParts& parts);
  void place_norms(const LoraOptions& options, const TrainableParts& parts);

  at::Tensor values_, gradients_;
  at::Tensor compute_values_;  // of the numbers that come first: those of the linear layers
  EmbeddingNames names_;
  bool fp32_products_ = false;  // for the group that is being placed
  int64_t placed_ = 0;
  bool bfloat16_ = false, fan_in_fan_out_ = false, has_encoder_ = false;
  std::vector<AdapterTensor> tensors_;
  std::vector<std::pair<std::string, std::string>> copies_;
  std::vector<std::pair<std::string, const quant::FrozenWeight*>> frozen_beside_;
  std::vector<LoraLinear*> dora_layers_, layers_with_bias_;
  std::vector<TargetMatch> matches_;
  std::vector<std::string> target_modules_, target_parameters_;
  TrainedEmbeddings embeddings_;
  int64_t num_modules_ = 0;
};

// ConfigError if experts or routers among the modules are to be trained in a way that they cannot
// be, which attaching refuses too: whole, with DoRA or with dropout.
void check_parameters(const LoraOptions& options, const std::vector<std::string>& names);

}  // namespace qlora::lora

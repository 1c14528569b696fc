// A language model on frozen weights: embedding, decoder layers, final norm, head, and with some
// an encoder, whose output the decoder's layers read (T5). What the trainer sees is hidden() for
// training and loss, logits() for generation.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lora/embedding.h"
#include "lora/linear_group.h"
#include "lora/trainable_parts.h"
#include "model/block.h"
#include "model/placement.h"
#include "model/recomputed_layers.h"

namespace qlora::model {

struct AttentionContext;
class BaseHasher;
struct BlockPass;
struct Stream;
class KvCache;
class Rotary;

// What an encoder reads, laid end to end: text d, from cu_seqlens[d] to cu_seqlens[d + 1], is the
// source of document d.
struct SourceTexts {
  std::vector<int32_t> tokens = {};
  std::vector<int32_t> cu_seqlens = {};
};

// A batch of documents laid end to end, and how the pass is run.
struct ForwardInput {
  std::vector<int32_t> tokens;
  std::vector<int32_t> positions;
  std::vector<int32_t> cu_seqlens;
  KvCache* cache = nullptr;
  bool adapters_enabled = true;
  bool training = false;
  RecomputedLayers recompute_layers;  // gradient checkpointing
  uint64_t dropout_key = 0;
  // Of a model with an encoder; none where the cache has been given what the encoder makes of it.
  SourceTexts source = {};
  const lora::InputObserver* observer = nullptr;  // must outlive the pass
  bool obeys_stop = false;  // left between two layers with Stopped (base/stop.h), if one is wanted
};

class CausalLm {
 public:
  CausalLm(Architecture architecture, at::Device device, at::ScalarType compute);
  ~CausalLm();

  // What the head reads of each token, [tokens, head.in] in the compute dtype, or in float32 if the
  // head is upcast. Differentiable towards the adapters.
  at::Tensor hidden(const ForwardInput& input);
  // Logits [rows, vocab] fp32 of some hidden rows; no gradient.
  at::Tensor logits(const at::Tensor& hidden_rows, bool adapters_enabled = true);
  // The residual stream in steps, fp32 [tokens, hidden], for what works layer by layer, without
  // gradient: what the decoder's first layer reads, and what layer `index` makes of it. Of `layers`
  // that layer alone must be there. Not of models with an encoder.
  at::Tensor first_residual(const ForwardInput& input);
  at::Tensor residual_behind(int64_t index, const at::Tensor& residual, const ForwardInput& input);
  // What the linear layers of a pass share, the head included.
  lora::ForwardContext context(const ForwardInput& input);

  const Architecture& architecture() const { return architecture_; }
  const BlockSpec& block(int64_t layer) const { return architecture_.block(layer); }
  // Of a KvCache for this model.
  std::vector<int64_t> cache_widths() const;
  at::Device device() const { return device_; }
  at::ScalarType compute_dtype() const { return compute_; }
  quant::Workspace& workspace() { return workspace_; }

  // Filled by load.cpp.
  // Where the layers' frozen weights lie, and what fetches those that are not on the device; null
  // if all are.
  Placement placement;
  std::shared_ptr<quant::Offload> offload;
  std::string hash_when_read;  // base_hash() with Placement::on_ranks(); else empty
  // model.upcast all: embedding and head are float32 copies of this dtype, and the head's product
  // is float32.
  std::optional<at::ScalarType> upcast_from;
  // Gate and up are kept in bfloat16 for the backward pass, whatever products are computed in:
  // their rounding reaches the gradients alone.
  bool narrow_gates = false;
  lora::Embedding embedding;
  at::Tensor positions;                           // as PositionSpec; undefined for none
  lora::NormWeight embedding_norm, final_norm;    // as far as the architecture has them
  lora::NormWeight encoder_norm;                  // behind the encoder's layers
  RelativeBias encoder_bias, decoder_bias;        // as StackSpec::relative_bias
  lora::LinearGroup projection, head_projection;  // of the embedding; without layers for none
  lora::LinearGroup head;     // one layer, lm_head; shares the embedding's memory when tied
  std::vector<Block> layers;  // as Architecture::block(): the encoder's, the decoder's
  // weight [vocab, hidden]; bias [vocab] or undefined
  void set_head(std::unique_ptr<quant::FrozenWeight> weight, at::Tensor bias = {});

  // The linear groups below the head, in the order of for_each_linear().
  std::vector<lora::LinearGroup*> groups();
  std::vector<const lora::LinearGroup*> groups() const;
  // Everything that can be trained.
  lora::TrainableParts parts();
  // Whether head and embedding are one matrix with what was trained of them.
  bool embeddings_still_tied() const;
  // The tables of encoder_bias and decoder_bias by their Hugging Face names.
  quant::NamedTensors relative_tables() const;
  // Every frozen tensor by its Hugging Face name, packed as it is stored.
  quant::NamedTensors frozen_state() const;
  // BaseHasher over frozen_state(), by the types that the weights have without model.upcast, and
  // with their blocks in float32 (Placement::float32) in model.dtype where that changes no number.
  // Of blocks that ranks keep together it was taken while they were read, by each rank of its own.
  std::string base_hash() const;
  // Its parts, in this order: what is not in the layers, and layer by layer.
  void add_outer_to(BaseHasher& hasher) const;
  void add_layer_to(int64_t layer, BaseHasher& hasher) const;

 private:
  // Of frozen_state() what is not in the layers.
  quant::NamedTensors outer_state() const;
  // Shared with what is run again in the backward pass.
  std::shared_ptr<const BlockPass> pass_of(const ForwardInput& input);
  std::shared_ptr<const BlockPass> pass_of(const SourceTexts& source);
  // What the encoder gives, [source tokens, hidden] in the compute dtype; undefined without one.
  at::Tensor encode(const ForwardInput& input);
  // The stream through layers [begin, end).
  Stream through_layers(int64_t begin, int64_t end, Stream stream,
                        const std::shared_ptr<const BlockPass>& pass, const ForwardInput& input,
                        const at::Tensor& encoded);
  Stream first_stream(const ForwardInput& input, const lora::ForwardContext& context);
  void require_tokens(const std::vector<int32_t>& tokens) const;
  at::Tensor position_bias(const AttentionContext& context);

  Architecture architecture_;
  at::Device device_;
  at::ScalarType compute_;
  std::vector<Rotary> rotaries_;  // as Architecture::rotaries
  at::Tensor alibi_;              // of as many positions as a pass needed
  quant::Workspace workspace_;
};

}  // namespace qlora::model

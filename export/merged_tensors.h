// The tensors of a model with its adapters merged (merged.h), one after the other in the order of
// its layers, each made when its turn comes. Who writes them says what they are called in its files
// and how those hold experts: Hugging Face directories (merged.cpp), GGUF (gguf_parts.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "model/weight_source.h"

namespace qlora::exporting {

// [out, in] in fp32, on the base's device. `original`: where the base's weight is read instead of
// the quantized one; null: nowhere. ConfigError for a base that does not stand for one matrix.
at::Tensor merged_weight(const lora::LoraLinear& linear, model::WeightSource* original);

class MergedTensors {
 public:
  using Make = std::function<at::Tensor()>;

  // Tensors that no training changed are read from `original`, if there is one, in `dtype`.
  MergedTensors(at::ScalarType dtype, model::WeightSource* original)
      : dtype_(dtype), original_(original) {}
  virtual ~MergedTensors() = default;

  // Calls the functions below for all tensors. They may keep `make`, which borrows the model.
  void visit(const model::CausalLm& model);

 protected:
  // By the name that the module has in transformers: "model.layers.0.self_attn.q_proj.weight"
  // [out, in].
  virtual void add(const std::string& name, const std::vector<int64_t>& shape, Make make) = 0;
  // The weight of a norm that Hugging Face files hold by group (NormSpec::by_group): [groups, size]
  virtual void add_groups(const std::string& module, const model::NormSpec& spec,
                          const lora::NormWeight& norm) = 0;
  // All experts of a layer of the decoder.
  virtual void add_experts(int64_t layer, const model::ExpertsSpec& spec,
                           const std::vector<model::ExpertWeights>& experts) = 0;

  void add_trained(const std::string& name, const at::Tensor& value);
  void add_frozen(const std::string& name, const at::Tensor& value);
  at::ScalarType dtype() const { return dtype_; }
  model::WeightSource* original() const { return original_; }

 private:
  void visit_embedding(const std::string& name, const lora::Embedding& embedding);
  void visit_norm(const std::string& module, const model::NormSpec& spec,
                  const lora::NormWeight& norm);
  void visit_linear(const lora::LoraLinear& linear);
  void visit_bias(const lora::LoraLinear& linear);
  // Nothing where `frozen` is undefined; `trained` may be null.
  void add_bias(const std::string& name, const at::Tensor& frozen,
                const lora::TrainedTensor* trained);
  void visit_group(const lora::LinearGroup& group);
  void visit_layer(const model::CausalLm& model, int64_t index);

  at::ScalarType dtype_;
  model::WeightSource* original_;
};

}  // namespace qlora::exporting

// Fills the adapter slots of a model and owns what is trained: one flat fp32 buffer of masters and
// one of gradients, so that clipping, the optimizer and a later all-reduce see a single tensor.
//
// Initialisation is PEFT's default: A Kaiming-uniform with a = sqrt(5), i.e. U(-1/sqrt(in),
// 1/sqrt(in)); B zero. It is a function of the seed and the module's name alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lora/initial_factors.h"
#include "lora/linear_group.h"
#include "lora/lora_options.h"
#include "lora/targets.h"

namespace qlora::lora {

// One trained tensor by its PEFT name ("base_model.model.<module>.lora_A.weight", DoRA's
// ".lora_magnitude_vector", and biases, ".base_layer.bias" where the module has an adapter).
struct AdapterTensor {
  std::string name;
  at::Tensor value;     // view of AdapterSet::values
  at::Tensor gradient;  // view of AdapterSet::gradients
};

class AdapterSet {
 public:
  // `given` wins over options.init where it has the module.
  // Attaches to every chosen layer of `groups`, whose frozen weights must be in place. `compute` is
  // the products' dtype.
  AdapterSet(const LoraOptions& options, std::vector<LinearGroup*> groups, at::ScalarType compute,
             uint64_t seed, const GivenFactors& given = {});

  const at::Tensor& values() const { return values_; }
  const at::Tensor& gradients() const { return gradients_; }
  const std::vector<AdapterTensor>& tensors() const { return tensors_; }
  const std::vector<TargetMatch>& matches() const { return matches_; }
  int64_t num_parameters() const { return values_.numel(); }
  int64_t num_modules() const { return num_modules_; }
  // The adapted modules as PEFT's target_modules, sorted: by last name ("q_proj") where every
  // module of that name is adapted, else by path.
  const std::vector<std::string>& target_modules() const { return target_modules_; }

  // Casts the masters into the copies the products read and takes the norms of DoRA's rows anew.
  // Call after every change of the masters.
  void publish();
  void zero_gradients() { gradients_.zero_(); }

 private:
  // The tensors of a group in the flat buffers, from `offset` on.
  void place_bias(LoraLinear& layer, int64_t& offset);
  void place_magnitude(LoraLinear& layer, int64_t& offset);
  void place(const LoraOptions& options, LinearGroup& group, uint64_t seed,
             const GivenFactors& given, int64_t& offset);

  at::Tensor values_, gradients_, compute_values_;
  std::vector<AdapterTensor> tensors_;
  std::vector<LoraLinear*> dora_layers_, layers_with_bias_;
  std::vector<TargetMatch> matches_;
  std::vector<std::string> target_modules_;
  int64_t num_modules_ = 0;
};

}  // namespace qlora::lora

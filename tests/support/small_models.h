// Small models of families whose modules are named, laid out or joined otherwise than Llama's: a
// config.json and the tensors of a Hugging Face directory, as those files have them.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "model/causal_lm.h"
#include "model/model_options.h"
#include "quant/quantization_options.h"

namespace qlora::test {

// The description of a config.json of this content.
model::Architecture described(const nlohmann::json& config);

// Hidden 32, 4 heads of 8, 258 tokens; where positions are learned, 24. Tensors are float32, those
// of 1-dimensional weights around 1, the others around 0, each a function of its name.
struct SmallModel {
  nlohmann::json config;
  std::map<std::string, at::Tensor> tensors;

  const at::Tensor& at(const std::string& name) const { return tensors.at(name); }
  // config.json and model.safetensors.
  void write_weights(const std::string& directory) const;
  // The same with the tokenizer of tiny_files.h.
  void write(const std::string& directory) const;
  // Unquantized, if not told otherwise.
  std::unique_ptr<model::CausalLm> load(at::ScalarType compute = at::kFloat,
                                        const model::ModelOptions& options = {},
                                        const quant::QuantizationOptions& quantization = {}) const;
};

SmallModel small_gpt2(int layers = 2);                            // inner 128, tied
SmallModel small_gptj(int layers = 2);                            // inner 48
SmallModel small_gpt_neox(int layers = 2, bool parallel = true);  // inner 48
SmallModel small_opt(int layers = 2);                             // inner 48, tied
SmallModel small_opt_350m(int layers = 2);  // the same with embeddings of 16, norms behind
SmallModel small_bloom(int layers = 2, bool residual_is_normed = false);  // inner 128, tied
SmallModel small_falcon(int layers = 2);  // as 40B, 2 key heads; inner 128, tied
// 2 key heads, inner 48, tied; queries are scaled by `beta` every 16 positions.
SmallModel small_ministral3(double beta, int layers = 2);

}  // namespace qlora::test

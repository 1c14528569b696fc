// GPTQ, layer by layer: each linear layer of a block is rounded by the inputs that it gets when
// everything before it is rounded already (Frantar et al. 2022, section 3.3). Of a block the groups
// of layers that share an input follow each other, q,k,v | o | gate,up | down, and the calibration
// sequences run through the block once for each (to the group, where their inputs are seen by
// ForwardInput::observer) and once more for the next block's input. Without true_sequential one run
// serves all groups of a block.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/progress.h"
#include "model/causal_lm.h"
#include "quant/gptq/gptq_options.h"
#include "quant/gptq/gptq_quantize.h"
#include "quant/quantization_options.h"
#include "recipes/exports/activation_store.h"
#include "recipes/exports/calibration_rows.h"

namespace qlora::recipes {

class GptqCalibration {
 public:
  // Called with each layer's float32 weight and what became of it.
  using Watch = std::function<void(const std::string& module, const at::Tensor& weight,
                                   const quant::FrozenWeight& quantized)>;

  // `model` is one of load_without_blocks(); all are kept by reference. `skip`: whose skip_modules
  // stay as they are. The sequences' embeddings are computed here and put in `activations`.
  GptqCalibration(model::CausalLm& model, const CalibrationRows& rows, ActivationStore& activations,
                  const quant::GptqOptions& options, const quant::QuantizationOptions& skip,
                  Watch watch);

  // Replaces the weights of the block, which must be the next one, by what GPTQ directories hold
  // (quant/formats/exported_weight.h), and runs the sequences through it. Experts that are chosen
  // for less than 0.5 % of the tokens that they would get if all were chosen alike are rounded to
  // nearest. Stopped between two sequences if a stop is wanted; errors of gptq_factor() and
  // gptq_quantize().
  void quantize_block(int64_t layer, model::Block& block, Progress& progress);

  // How many weights were rounded to nearest for want of inputs.
  int64_t num_without_inputs() const { return num_without_inputs_; }

 private:
  using Hessians = std::map<const lora::LinearGroup*, quant::GptqHessian>;

  // A group, and the share of all tokens that it is expected to get.
  struct Part {
    lora::LinearGroup* group;
    double share_of_tokens;
  };
  // Groups that are rounded by the inputs of one run.
  using Stage = std::vector<Part>;

  std::vector<Stage> stages_of(const model::BlockSpec& spec, model::Block& block) const;
  static std::vector<Stage> runs_of(const Stage& stage);
  bool is_quantized(const lora::LoraLinear& linear) const;
  void run_to(int64_t layer, Hessians& hessians, const Progress& progress);
  void run_through(int64_t layer, const Progress& progress);
  void quantize_stage(int64_t layer, const Stage& stage, Progress& progress);
  void quantize_group(lora::LinearGroup& group, const quant::GptqHessian& hessian,
                      double tokens_expected, Progress& progress);
  void quantize(lora::LoraLinear& linear, const quant::GptqFactor* factor);

  model::CausalLm& model_;
  const CalibrationRows& rows_;
  ActivationStore& activations_;
  const quant::GptqOptions& options_;
  const quant::QuantizationOptions& skip_;
  Watch watch_;
  std::vector<std::string> never_;  // modules of the block that are never quantized
  std::map<std::string, std::unique_ptr<quant::FrozenWeight>> exported_;  // of the block
  int64_t num_without_inputs_ = 0;
};

}  // namespace qlora::recipes

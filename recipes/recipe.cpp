#include "recipes/recipe.h"

#include <cstdint>
#include <limits>

#include "base/faults.h"
#include "lora/weight_init.h"
#include "model/placement.h"

namespace qlora::recipes {
namespace {

void validate_objective(const Recipe& recipe, Faults& faults) {
  const std::string& objective = recipe.train.objective;
  const bool compares = objective != "sft", has_pairs = recipe.data.has_pairs();
  if (has_pairs && !compares)
    faults.add(
        "train.objective: rows of format preference are learnt from by dpo or orpo, found sft; set "
        "one of the two");
  if (!has_pairs && compares && !recipe.data.train.empty())
    faults.add(
        "train.objective: {} compares a chosen with a rejected answer, and data.train[0].format is "
        "{}; set it to preference, or train.objective to sft",
        objective, recipe.data.train.front().format);
  if (objective == "dpo" && recipe.data.train_on == data::TrainOn::kAll)
    faults.add("data.train_on: dpo compares answers, and their prompts say nothing; leave it out");
}

// Tokens of a micro-batch are counted in 32 bits, and a row that is a pair of answers has twice
// data.sequence_length. By division: the product may not fit into 64.
void validate_micro_batch(const Recipe& recipe, Faults& faults) {
  constexpr int64_t kMostTokens = std::numeric_limits<int32_t>::max() / 2;
  const int64_t rows = recipe.train.micro_batch_size, length = recipe.data.sequence_length;
  if (length > kMostTokens)
    faults.add("data.sequence_length must be at most {}, found {}", kMostTokens, length);
  else if (length > 0 && rows > kMostTokens / length)
    faults.add(
        "train.micro_batch_size: {} rows of data.sequence_length {} are more than {} tokens; set "
        "it to at most {}, or lower data.sequence_length",
        rows, length, kMostTokens, kMostTokens / length);
}

// Which blocks stay in float32 decides what the base is: it must not follow from what is free, nor
// be undone by what else changes the base or holds it in one type.
void validate_fp32_cpu_offload(const Recipe& recipe, Faults& faults) {
  if (!recipe.quantization.fp32_cpu_offload) return;
  const auto refuse = [&](const char* reason) {
    faults.add("quantization.fp32_cpu_offload: {}", reason);
  };
  if (recipe.model.device_map.empty())
    refuse(
        "it is about the blocks that model.device_map has on the cpu or on disk, and there is no "
        "map; give one such as {model.layers.0: cpu}, or leave it out");
  if (model::is_automatic(recipe.model))
    refuse(
        "with model.device_map: auto the blocks in float32 would be others whenever other memory "
        "is free; name them: {model.layers.0: cpu}");
  if (lora::init_changes_base(recipe.lora.init))
    refuse("lora.init loftq, pissa and olora change the quantized base; use default");
  if (recipe.output.save_base && recipe.model.dtype != "float32")
    refuse(
        "output.save_base writes what is not quantized in model.dtype; set model.dtype: float32, "
        "or leave save_base out");
}

// Of what lies in parts with all ranks the first can neither write nor answer by itself.
void validate_shared_blocks(const Recipe& recipe, Faults& faults) {
  if (!model::shares_blocks(recipe.model)) return;
  if (!recipe.train.sample_prompts.empty())
    faults.add(
        "train.sample_prompts: with model.device_map: ranks no rank has the model to answer with; "
        "leave them out, and let qlora generate answer with the adapter");
  if (recipe.output.save_base)
    faults.add(
        "output.save_base: with model.device_map: ranks no rank has the base to write; leave it "
        "out, or write the base beforehand with qlora quantize");
  if (lora::init_changes_base(recipe.lora.init))
    faults.add(
        "lora.init: {} changes the base, and with model.device_map: ranks no rank has it to write; "
        "use default",
        recipe.lora.init);
}

}  // namespace

data::DataOptions Recipe::data_as_read() const {
  data::DataOptions options = data;
  options.audit = train.audit;
  return options;
}

void Recipe::find_faults_across_sections(Faults& faults) const {
  validate_objective(*this, faults);
  validate_micro_batch(*this, faults);
  validate_fp32_cpu_offload(*this, faults);
  validate_shared_blocks(*this, faults);
  const bool evaluates = train.eval_every > 0 && (!data.eval.empty() || data.eval_fraction != 0.0);
  if (optim.schedule == "reduce_on_plateau" && !evaluates)
    faults.add(
        "optim.schedule: reduce_on_plateau follows the evaluation loss; give data.eval or "
        "data.eval_fraction, and train.eval_every");
  if (train.eval_every > 0 && data.eval.empty() && data.eval_fraction == 0.0)
    faults.add(
        "train.eval_every is {}, but there is nothing to evaluate on; give data.eval or "
        "data.eval_fraction, or leave it out",
        train.eval_every);
  if (optim.stochastic_rounding && lora.dtype != "bfloat16")
    faults.add(
        "optim.stochastic_rounding rounds to bfloat16, and lora.dtype is {}; set lora.dtype: "
        "bfloat16, or leave it out",
        lora.dtype);
}

}  // namespace qlora::recipes

// A recipe as trainer/memory_plan.h and trainer/time_plan.h see it.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "model/causal_lm.h"
#include "model/made_weights.h"
#include "model/model_header.h"
#include "quant/planned_bytes.h"
#include "recipes/plan/cached_rows.h"
#include "recipes/recipe.h"
#include "trainer/memory_plan.h"
#include "trainer/time_plan.h"

namespace qlora::recipes {

// Of a model whose weights are not loaded. The sequences are as long as data.sequence_length lets
// them be. train.gradient_checkpointing auto counts as false here. `ranks`: as in
// micro_batches_a_rank(); of them `ranks_here` are on this machine and share what is free on it (0:
// all). ConfigError if the recipe asks for another quantization than the model is
// stored in, or for more layers than it has, or of placement_of() and micro_batches_a_rank().
trainer::PlannedRun planned_run(const Recipe& recipe, const model::ModelHeader& header, bool on_gpu,
                                int ranks = 1, int ranks_here = 0);
// Of a loaded one.
trainer::PlannedRun planned_run(const Recipe& recipe, const model::CausalLm& model,
                                int64_t sequence_length, int ranks = 1);

// How the base will hold its linear layers, of whose weights nothing is read: a function of the
// module and its layer. Recipe and header must outlive it. ConfigError as quantization_of().
std::function<quant::WeightBytes(const std::string& module, const model::LinearSpec& linear)>
planned_weights(const Recipe& recipe, const model::ModelHeader& header);

// How many micro-batches of a step each of so many ranks computes. ConfigError naming
// train.gradient_accumulation_steps where they cannot share them.
int64_t micro_batches_a_rank(const Recipe& recipe, int ranks);

// The quantization that loading this model comes to: as_stored is what the file says.
quant::QuantizationOptions quantization_of(const Recipe& recipe, const model::ModelHeader& header);
// ConfigError if quantization.fp32_cpu_offload is for weights that are quantized already.
void require_offload_of(const Recipe& recipe, const model::ModelHeader& header);
// For layers that the file packs and the recipe leaves so; empty if there are none.
model::PackedMaker packed_maker(const Recipe& recipe, const model::ModelHeader& header);

// The largest file of the model's weights; empty where they are not there.
std::string weights_file(const model::ModelHeader& header);

// Seconds of what a run with train.objective dpo does before its first step: a forward pass over
// all rows, whose tokens are those of `rows`, or told by the size of their files. 0 for other
// objectives.
double reference_seconds(const Recipe& recipe, const trainer::TimePlan& time,
                         const std::optional<CachedRows>& rows = std::nullopt);

}  // namespace qlora::recipes

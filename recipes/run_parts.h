// The steps of a run that qlora_finetune.cpp tells in order, each made from the recipe.
#pragma once

#include <string>
#include <vector>

#include "data/loader.h"
#include "data/prepare.h"
#include "lora/attach.h"
#include "optim/optimizer.h"
#include "recipes/base_model.h"
#include "recipes/recipe.h"
#include "recipes/run_directory.h"
#include "trainer/checkpoint.h"
#include "trainer/run_report.h"
#include "trainer/train_loop.h"

namespace qlora::recipes {

// With lora.from_adapter, rank, alpha, dropout and targets are those of that adapter.
void adopt_adapter_options(Recipe& recipe);

// Turns lora.trainable_tokens into lora.trainable_token_indices. ConfigError if the model's
// tokenizer has no such token.
void name_trained_tokens(Recipe& recipe);

// A new run's choices (threads, device), or all that a checkpoint has kept. ConfigError if the
// checkpoint was made on another kind of device.
trainer::TrainState begin_or_read_state(const Recipe& recipe, const RunDirectory& run);
// The recipe with what `auto` resolved to when the run began.
Recipe with_choices(Recipe recipe, const trainer::TrainState& state);
// Applies the thread count and says what is computed on; gives the device.
c10::Device set_up_machine(const Recipe& recipe, const trainer::TrainState& state);

// Prepared and reported on the terminal. Before the weights are read, so that a row that is wrong
// is told first.
data::PreparedData read_data(const Recipe& recipe, const ModelText& text);
data::Loader make_loader(const Recipe& recipe, const data::PreparedData& data);

// Steps of the whole run.
int64_t total_steps(const Recipe& recipe, const data::Loader& loader);
// What a new run records of base, data and length; for a resumed one it is compared. ConfigError if
// base or data are others than the run began with, or the run is longer and train.on_extend does
// not say what the learning rate does.
void complete_state(const Recipe& recipe, const BaseModel& base, const data::PreparedData& data,
                    const data::Loader& loader, trainer::TrainState& state);

// ConfigError unless the adapter's record, if it has one, names this base.
void require_same_base(const std::string& adapter, const BaseModel& base);
// New adapters, or those of lora.from_adapter; prints what was matched.
lora::AdapterSet attach_adapters(const Recipe& recipe, const BaseModel& base);
// Warns of trained tokens that no training row holds.
void look_for_trained_tokens(const lora::AdapterSet& adapters, const data::PreparedData& data);
std::vector<optim::Parameter> parameters_of(const Recipe& recipe, const lora::AdapterSet& adapters);

// Loads the checkpoint into the parts.
void go_on_from(const std::string& checkpoint, const trainer::CheckpointParts& parts);

// What the run's lines show, and which evaluations its time left counts.
trainer::ReportOptions report_options(const Recipe& recipe, const data::PreparedData& data);

// Length, clipping, evaluation and saving of the loop. All arguments outlive the job.
void set_up_job(const Recipe& recipe, const data::PreparedData& data, const std::string& run_dir,
                const trainer::CheckpointParts& parts, trainer::RunReport& report,
                trainer::TrainJob& job);

// RUN/adapter of a finished run, and what to do next.
void finish(const Recipe& recipe, const RunDirectory& run, const BaseModel& base,
            const trainer::TrainJob& job);

}  // namespace qlora::recipes

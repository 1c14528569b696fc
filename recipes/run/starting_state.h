// The state that a run starts with: a new run's own, or that of a checkpoint, which must fit to
// what it goes on with.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/loader.h"
#include "data/prepare.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "recipes/run_files/run_directory.h"
#include "trainer/checkpoint.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// What the state.json of the checkpoint that the run goes on from has kept; nothing of a run that
// begins. Its tensors are loaded once there is something to load them into, by go_on_from(). All
// ranks get what the first has read. Its evaluations are judged anew by
// train.early_stopping_min_delta.
std::optional<trainer::TrainState> read_begun_state(const Recipe& recipe, const RunDirectory& run,
                                                    distributed::Group& group);
// That state, or a new run's choices (threads, device). ConfigError if the checkpoint was made on
// another kind of device. All ranks have what the first has, but for the device, of which each has
// its own.
trainer::TrainState starting_state(const Recipe& recipe,
                                   const std::optional<trainer::TrainState>& begun,
                                   distributed::Group& group);
// The recipe with what `auto` resolved to when the run began.
Recipe with_choices(Recipe recipe, const trainer::TrainState& state);
// What the run directory records: the recipe with the dtype that `auto` found in the base's file.
Recipe as_recorded(Recipe recipe, const trainer::TrainState& state);

// ConfigError if a run that was laid out for `horizon` steps is to have more, `total`, and
// train.on_extend does not say what the learning rate does, or lets it stay at 0.
void require_on_extend(const Recipe& recipe, int64_t horizon, int64_t total);

// Of a run that goes on, the steps that its learning rate follows if it is to be longer. To be
// called before the weights are read: train.epochs become steps with the rows. ConfigError if these
// are others than the run began with, or as above.
void extend(const Recipe& recipe, const data::PreparedData& data, const data::Loader& loader,
            trainer::TrainState& state);

// What a new run records of base, data and length; of a resumed one the base is compared.
// ConfigError if it is another than the run began with.
void complete_state(const Recipe& recipe, const BaseModel& base, const data::PreparedData& data,
                    const data::Loader& loader, const distributed::Group& group,
                    trainer::TrainState& state);

// Loads the checkpoint into the parts, whose state complete_state() has compared.
// The first rank reads it for all.
void go_on_from(const std::string& checkpoint, const trainer::CheckpointParts& parts,
                distributed::Group& group);

}  // namespace qlora::recipes

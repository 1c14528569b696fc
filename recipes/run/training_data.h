// The rows of a run and the steps that they make.
#pragma once

#include <cstdint>
#include <string>

#include "data/loader.h"
#include "data/prepare.h"
#include "distributed/group.h"
#include "recipes/models/base_model.h"
#include "recipes/recipe.h"
#include "trainer/train_state.h"

namespace qlora::recipes {

// Prepared and reported on the terminal. Before the weights are read, so that a row that is wrong
// is told first. `state` is that of a run that begins, which has no horizon, or goes on. Where the
// steps of train.max_steps deal out the first rows alone, it reads no others. All ranks call it
// together: of those on one machine the first makes what the cache of tokenized rows lacks, for
// which the others wait as long as the group is patient (LostRank).
data::PreparedData read_data(const Recipe& recipe, const ModelText& text,
                             const trainer::TrainState& state, distributed::Group& group);
// What the datasets' weights make of an epoch, a line each (data/mixture.h); empty without weights.
std::string mixture_of(const Recipe& recipe, const data::PreparedData& data);
// Tells that.
data::Loader make_loader(const Recipe& recipe, const data::PreparedData& data);

// Steps of the whole run. Those of a part of an epoch are rounded up, as transformers does it; a
// run that older versions laid out for `horizon` steps, rounding to the nearest, keeps these (0: of
// a run that begins). ConfigError if train.epochs are more steps than a run may have.
int64_t total_steps(const Recipe& recipe, const data::Loader& loader, int64_t horizon);
// Tokens of the fullest sequence there can be.
int64_t longest_sequence(const Recipe& recipe, const data::Loader& loader);

}  // namespace qlora::recipes

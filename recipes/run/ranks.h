// The processes that a launcher started for one run (docs/distributed.md): how they meet, and what
// each of them does by itself.
#pragma once

#include <memory>
#include <string>

#include "data/prepare.h"
#include "distributed/group.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint.h"

namespace qlora::recipes {

// Those that the environment speaks of; one rank without a launcher. From then on only the first
// speaks to the terminal. ConfigError of micro_batches_a_rank(). LostRank if they do not meet.
std::shared_ptr<distributed::Group> meet_ranks(const Recipe& recipe);
// ConfigError naming the first rank with another recipe or program.
void require_same_recipe(distributed::Group& group, const Recipe& recipe);

// train.device of this rank: of GPUs that are not named each rank of a machine gets its own.
std::string device_of_rank(const std::string& device, const distributed::Place& place);
// The cores that this process may use, shared with the other ranks of the machine unless the
// launcher bound each to its own: what train.threads 0 means. All ranks ask together.
int cores_of_rank(distributed::Group& group);

// Whether all ranks start from the same numbers, and after that train on the same ones: ConfigError
// naming the first that does not.
void require_same_start(distributed::Group& group, const std::string& base_hash,
                        const data::PreparedData& data);
void require_same_state(distributed::Group& group, const lora::AdapterSet& adapters,
                        const optim::Optimizer& optimizer);

// What the first rank has read from a checkpoint.
void hand_on_state(distributed::Group& group, trainer::TrainState& state);
void hand_on_checkpoint(distributed::Group& group, const trainer::CheckpointParts& parts);

}  // namespace qlora::recipes

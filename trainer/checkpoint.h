// Checkpoints: adapter, optimizer state and TrainState in one directory that is complete or absent.
//
//   RUN/checkpoint-000050/  adapter/  optimizer.safetensors  state.json  MANIFEST.json
//
// MANIFEST.json lists size and hash of every other file and is written last; the directory gets its
// name by a rename once all of it is on disk.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lora/adapter_file.h"
#include "lora/attach.h"
#include "optim/optimizer.h"
#include "trainer/train_state.h"

namespace qlora::trainer {

// The parts of a run that a checkpoint holds; references outlive it.
struct CheckpointParts {
  lora::AdapterSet& adapters;
  const lora::LoraOptions& lora_options;
  const lora::AdapterBase& base;
  optim::Optimizer& optimizer;
  TrainState& state;
  // Writes into the adapter's directory what else belongs to it: texts, as a chat template.
  std::function<void(const std::string& directory)> complete_adapter = {};
};

// "checkpoint-000050"
std::string checkpoint_name(int64_t step);
// The step of a name that checkpoint_name() gives; nothing for any other, as checkpoint-merged.
std::optional<int64_t> step_of_checkpoint(const std::string& name);

// Writes RUN/checkpoint-<step>; keeps the one that is there already, which holds the same, unless
// its evaluation was still due or it is not whole: that one is replaced. IoError before anything is
// written if the disk has no room for it, and whenever a write fails: older checkpoints are
// untouched.
void save_checkpoint(const std::string& run_dir, const CheckpointParts& parts);

// How closely a checkpoint is looked at: sizes takes no time, hashes reads all of it, and adapter
// reads what those use who do not train on: all but the optimizer's state, of which it looks at
// the size.
enum class Look { kSizes, kAdapter, kHashes };
// FormatError naming the first file that is missing, superfluous, cut off or (by its hash) changed.
void verify_checkpoint(const std::string& directory, Look look = Look::kHashes);
// state.json alone.
TrainState read_train_state(const std::string& directory);
// Verifies, then fills adapters, optimizer and state. FormatError if the tensors do not fit; the
// parts are then as before.
void load_checkpoint(const std::string& directory, CheckpointParts parts);

// The steps of what is called a checkpoint in a run, whole or not, ascending: directories, and
// links wherever they lead to.
std::vector<int64_t> checkpoint_steps(const std::string& run_dir);

struct PassedOver {
  std::string directory;
  std::string fault;  // "RUN/checkpoint-000008: MANIFEST.json is missing; ..."
};
struct NewestCheckpoint {
  std::optional<std::string> whole;     // the one with the most steps
  std::vector<PassedOver> passed_over;  // those with more steps, of which a file is missing,
                                        // cut off or changed
};
// Reads, and changes nothing.
NewestCheckpoint newest_checkpoint(const std::string& run_dir, Look look);

// RUN/best -> checkpoint-<step>, replaced in one move. Without such a checkpoint there is no link.
// False on a file system that has no links.
bool point_best_at(const std::string& run_dir, int64_t step);
// Removes all but the `limit` newest checkpoints (0: keep all) and the best one, which may be one
// of them. Of one that cannot be removed a warning is given.
void rotate_checkpoints(const std::string& run_dir, int64_t limit, int64_t best_step);

}  // namespace qlora::trainer

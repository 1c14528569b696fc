// Where the adapter of a run lies.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora::recipes {

// Without `checkpoint`: RUN/adapter, or the adapter of the last whole checkpoint while the run is
// not finished. Else that of the named one: its name in the run, as "best" or "checkpoint-000040",
// or a path to it. Reads alone. ConfigError if there is none yet, the run is being replaced, or it
// holds no such checkpoint (naming those that are there); FormatError if the named one is not
// whole.
std::string adapter_of_run(const std::string& run_dir, const std::string& checkpoint = "");

// "best, checkpoint-000002, checkpoint-000004"; "none".
std::string checkpoints_in(const std::string& run_dir);

// The step after which the adapter in `directory` was saved, if a checkpoint holds it.
std::optional<int64_t> step_of_adapter(const std::string& directory);

}  // namespace qlora::recipes

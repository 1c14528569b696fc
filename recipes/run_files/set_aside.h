// What a run leaves behind when it goes back to an earlier checkpoint, or on beyond its end.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::recipes {

// Whether RUN/set-aside-<n> is this name.
bool is_set_aside(const std::string& name);

// Whether there is a file that is not empty at `path`, or any file in the directory there.
bool holds_a_file(const std::string& path);

// Moves what RUN holds of steps after `step` to RUN/set-aside-<n>: checkpoints, whole or not, and
// the adapter that its end wrote; with a checkpoint copies of metrics.jsonl and samples.jsonl go,
// whose later lines a resumed run cuts. Nothing is removed but checkpoint directories without any
// file. Says what was moved. Each move is one rename: after a kill between two of them the rest is
// still in its place. IoError.
void set_aside_after(const std::string& run_dir, int64_t step);

}  // namespace qlora::recipes

// What a run leaves behind when it goes back to an earlier checkpoint, or on beyond its end.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::recipes {

// Whether RUN/set-aside-<n> is this name.
bool is_set_aside(const std::string& name);

// Whether there is a file that is not empty at `path`, or any file in the directory there, or a
// link that leads nowhere now.
bool holds_a_file(const std::string& path);

// Moves what RUN holds of steps after `step` to RUN/set-aside-<n>: checkpoints, whole or not, and
// the adapter that its end wrote. Copies of metrics.jsonl and samples.jsonl go with them if they
// have later lines, which a resumed run cuts. They go by themselves if a later checkpoint was
// written (last_save.h), and has been deleted since, or if the recipe is no more the same. Else a
// kill left those lines, and the same steps write them again: they are not kept. Nothing is removed
// but checkpoint directories without any file. Says what was moved. Each move is one rename, or of
// a link a new one first: after a kill between two of them the rest is still in its place. IoError.
void set_aside_after(const std::string& run_dir, int64_t step, bool same_recipe);

// Moves one file or directory of RUN to RUN/set-aside-<n> and gives its new path. IoError.
std::string set_aside(const std::string& run_dir, const std::string& name);

}  // namespace qlora::recipes

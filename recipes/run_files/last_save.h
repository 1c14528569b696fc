// That a run has written a checkpoint, whatever became of it: RUN/last_save.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora::recipes {

constexpr const char* kLastSave = "last_save.json";

// Notes the step of the newest checkpoint that the run has written; until it has written one, the
// step from which it begins or goes on. Written after the checkpoint, so that a kill between the
// two leaves an older step. IoError.
void note_last_save(const std::string& run_dir, int64_t step);

// That step. Nothing of runs of versions that made no note.
std::optional<int64_t> last_save(const std::string& run_dir);

}  // namespace qlora::recipes

// That a run has written a checkpoint, whatever became of it: RUN/last_save.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora::recipes {

constexpr const char* kLastSave = "last_save.json";

// Notes the step of the newest checkpoint that the run has written; until it has written one, the
// step from which it begins or goes on. Written after the checkpoint, so that a kill between the
// two leaves an older step. `rows`: of a start, the fingerprint of the rows that it trains on;
// empty: none is noted. IoError.
void note_last_save(const std::string& run_dir, int64_t step, const std::string& rows = "");

// That step. Nothing of runs of versions that made no note.
std::optional<int64_t> last_save(const std::string& run_dir);

// The fingerprint of the rows of the last start, where it has written no checkpoint yet; else
// nothing.
std::optional<std::string> rows_of_last_start(const std::string& run_dir);

}  // namespace qlora::recipes

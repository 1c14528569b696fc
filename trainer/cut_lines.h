// Files of JSON lines, each of a step, that a resumed run appends to.
#pragma once

#include <cstdint>
#include <string>

namespace qlora::trainer {

// Keeps of the file at `path` the lines that are JSON objects and of no step after `last_step`
// (lines without a whole number as "step" stay), and gives the path. Where there are others, the
// file is replaced by a new one (io/atomic_write.h), so that a kill loses none that is kept. A file
// that is not there stays away. IoError.
std::string cut_after(const std::string& path, int64_t last_step);

// Whether cut_after() would take anything away.
bool goes_on_after(const std::string& path, int64_t last_step);
// Whether a whole line of a later step is among that.
bool has_step_after(const std::string& path, int64_t last_step);

}  // namespace qlora::trainer

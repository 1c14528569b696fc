// What is asked of the place that a command is to write to, before it works for it. The option by
// which the place was named begins each sentence: "--output".
#pragma once

#include <string>

namespace qlora::recipes {

// ConfigError unless a directory can be made there, and what is above it: there is none, or an
// empty one, it is no place of a run (run_files/run_names.h), and its name is not too long.
// IoError if nothing may be written there.
void require_output_directory(const std::string& option, const std::string& path);

// The same of a file, whose folder must be there. Whether something lies at the path is asked by
// whoever knows what may be replaced (io/replaceable.h).
void require_output_file(const std::string& option, const std::string& path);

}  // namespace qlora::recipes

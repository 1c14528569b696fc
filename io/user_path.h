// Paths as people write them, where no shell has been at work: in a recipe, and behind "=".
#pragma once

#include <string>

namespace qlora::io {

// The path with a leading "~" or "~/" replaced by the user's home directory (HOME). ConfigError for
// "~name", another user's, and if HOME is not set. Other paths come back as they are.
std::string expand_home(const std::string& path);

// The name at a path's end, of a file or of a directory that may have a slash behind it.
std::string last_part(const std::string& path);

}  // namespace qlora::io

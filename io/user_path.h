// Paths as people write them, where no shell has been at work: in a recipe, and behind "=".
#pragma once

#include <string>

namespace qlora::io {

// The path with a leading "~" or "~/" replaced by the user's home directory (HOME). ConfigError for
// "~name", another user's, and if HOME is not set. Other paths come back as they are.
std::string expand_home(const std::string& path);

// The user's directory for files of a kind, as the XDG Base Directory Specification has it: what
// the environment's `variable` ("XDG_CACHE_HOME") names, else `below_home` (".cache") in HOME. A
// relative path in either is ignored, as if it were not set. Empty if neither names one.
std::string user_directory(const char* variable, const std::string& below_home);

// The name at a path's end, of a file or of a directory that may have a slash behind it.
std::string last_part(const std::string& path);

}  // namespace qlora::io

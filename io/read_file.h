// Whole small files.
#pragma once

#include <string>

namespace qlora::io {

// All bytes of a file; IoError if it cannot be read.
std::string read_bytes(const std::string& path);

}  // namespace qlora::io

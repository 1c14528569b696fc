// How fast a disk gives the bytes of a file.
#pragma once

#include <string>

namespace qlora::io {

// Bytes a second, of some tens of megabytes in pieces from all over the file, in a few tenths of a
// second at most. What the system holds of these pieces in memory it is asked to drop before, so
// that the disk is measured and not its cache; file systems that lie in memory give their own rate.
// IoError if the file cannot be read or is empty.
double read_rate(const std::string& path);

}  // namespace qlora::io

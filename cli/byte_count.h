// Amounts of memory as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora::cli {

// "16GB", "800 MB", "15.5GiB", or bytes; nothing if the text is none of these.
std::optional<int64_t> byte_count(const std::string& text);

}  // namespace qlora::cli

// Sizes as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora {

// "16GB", "800 MB", "15.5GiB", "20MiB" or bytes -> bytes; nothing where the text is no size above
// 0.
std::optional<int64_t> byte_size(const std::string& text);

}  // namespace qlora

// Sizes as people write them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace qlora {

// For messages: which units there are.
constexpr const char* kSizeUnits = "KB, MB, GB, TB, KiB, MiB, GiB or TiB; without a unit, bytes";

// "16GB", "800 MB", "15.5GiB", "20MiB" or bytes -> bytes, in letters of either case, and "16G" for
// 16GB; nothing where the text is no size above 0.
std::optional<int64_t> byte_size(const std::string& text);

// "10GB/s", "1.2 GiB/s", "500MB/s", or in bits as networks are sold: "10Gbit/s", "100 Mbit/s"; ->
// bytes a second.
std::optional<double> bytes_a_second(const std::string& text);

}  // namespace qlora

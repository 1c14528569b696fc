// Lines "KEY   123 kB" of files in /proc.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace qlora {

// The bytes that the line of `key` (with its colon) tells; 0 if the file has no such line.
int64_t proc_bytes(const std::filesystem::path& file, std::string_view key);

}  // namespace qlora

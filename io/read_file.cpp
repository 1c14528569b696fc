#include "io/read_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace qlora::io {

std::string read_bytes(const std::string& path) {
  std::error_code status;
  if (std::filesystem::is_directory(path, status)) {
    fail<IoError>("{} must be a file, but it is a directory", path);
  }
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) fail<IoError>("{} cannot be opened: {}", path, std::strerror(errno));
  const std::streamoff size = file.tellg();
  if (size < 0) fail<IoError>("{} must be a plain file", path);
  std::string bytes(static_cast<size_t>(size), '\0');
  file.seekg(0).read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file) fail<IoError>("{} cannot be read: {}", path, std::strerror(errno));
  return bytes;
}

}  // namespace qlora::io

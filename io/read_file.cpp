#include "io/read_file.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <ios>
#include <iterator>

#include "base/error.h"
#include "base/path_error.h"

namespace qlora::io {

std::string read_bytes(const std::string& path) {
  std::error_code status;
  if (std::filesystem::is_directory(path, status)) {
    fail<PathError>("{} must be a file, but it is a directory", path);
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_on_path(errno, "{} cannot be opened", path);
  std::string bytes;
  const uintmax_t size = std::filesystem::file_size(path, status);
  if (!status) bytes.reserve(size);  // a pipe has none
  try {
    bytes.assign(std::istreambuf_iterator<char>(file), {});
  } catch (const std::ios_base::failure& error) {  // the buffer's, behind the stream's back
    fail_on_path(error.code().value(), "{} cannot be read", path);
  }
  return bytes;
}

}  // namespace qlora::io

#include "io/nameless_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/path_error.h"

namespace qlora::io {
namespace {

int open_nameless(const std::string& directory) {
  const int file = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0) return file;  // some file systems have no such files
  std::string name = (std::filesystem::path(directory) / "nameless-XXXXXX").string();
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) unlink(name.c_str());
  return named;
}

}  // namespace

NamelessFile::NamelessFile(const std::string& directory) : descriptor_(open_nameless(directory)) {
  if (descriptor_ < 0) fail_on_path(errno, "no file can be made in {}", directory);
}

NamelessFile::~NamelessFile() { close(descriptor_); }

}  // namespace qlora::io

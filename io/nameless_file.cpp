#include "io/nameless_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/path_error.h"
#include "io/names_beside.h"
#include "io/repeated.h"

namespace qlora::io {
namespace {

namespace fs = std::filesystem;

int open_nameless(const std::string& directory) {
  int file =
      repeated([&] { return ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); });
  if (file >= 0) return file;
  do {
    const std::string name = name_beside((fs::path(directory) / kNameless).string(), kPartial);
    file =
        repeated([&] { return ::open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600); });
    if (file >= 0) unlink(name.c_str());
  } while (file < 0 && errno == EEXIST);
  return file;
}

}  // namespace

std::string scratch_directory() {
  if (const char* named = std::getenv("TMPDIR"); named != nullptr && *named != '\0') return named;
  std::error_code status;
  if (fs::is_directory("/var/tmp", status)) return "/var/tmp";
  return fs::temp_directory_path().string();
}

NamelessFile::NamelessFile(const std::string& directory) : descriptor_(open_nameless(directory)) {
  if (descriptor_ < 0) fail_on_path(errno, "no file can be made in {}", directory);
}

NamelessFile::~NamelessFile() { close(descriptor_); }

}  // namespace qlora::io

#include "io/spill_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "base/path_error.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

constexpr const char* kElsewhere =
    "model.offload_dir, or for a run that is only read and names none TMPDIR, name a directory";
constexpr int64_t kAlignment = 64, kPage = 4096, kRegion = int64_t{64} << 20;

int64_t rounded_up(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

void require_room(const std::string& directory, int64_t planned_bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(directory, error);
  if (error) fail<IoError>("{} cannot be looked at: {}", directory, error.message());
  if (static_cast<uintmax_t>(std::max<int64_t>(planned_bytes, 0)) <= space.available) return;
  fail<IoError>(
      "{}: weights of {:.0f} MB are to lie there while the program runs, and {:.0f} MB are free; "
      "make room, or let {} on another disk",
      directory, static_cast<double>(planned_bytes) / 1e6,
      static_cast<double>(space.available) / 1e6, kElsewhere);
}

const std::string& made_with_room(const std::string& directory, int64_t planned_bytes) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error)
    fail_on_path(error.value(), "{} cannot be made (let {} elsewhere)", directory, kElsewhere);
  if (access(directory.c_str(), W_OK | X_OK) != 0)
    fail_on_path(errno, "{}: weights are to lie there while the program runs (let {} elsewhere)",
                 directory, kElsewhere);
  require_room(directory, planned_bytes);
  return directory;
}

}  // namespace

int64_t spill_region_bytes(int64_t offset, int64_t at_least) {
  constexpr int64_t kShare = 16;  // no disk is taken by what is not written
  return rounded_up(std::max(at_least, offset / kShare), kRegion);
}

SpillFile::SpillFile(const std::string& directory, int64_t planned_bytes)
    : directory_(directory), file_(made_with_room(directory, planned_bytes)) {}

SpillFile::~SpillFile() {
  for (Region& region : regions_) {
    region.known.reset();
    munmap(region.address, static_cast<size_t>(region.size));
  }
}

void SpillFile::add_region(int64_t at_least) {
  Region region{nullptr, 0, 0, 0, nullptr};
  if (!regions_.empty()) region.offset = regions_.back().offset + regions_.back().size;
  region.size = spill_region_bytes(region.offset, at_least);
  // The part of the file is there, without bytes of its own, before it is mapped.
  if (ftruncate(file_.descriptor(), region.offset + region.size) != 0)
    fail<IoError>("{}: the file of weights cannot grow: {}", directory_, std::strerror(errno));
  regions_.reserve(regions_.size() + 1);  // from the mapping on nothing is allocated that is lost
  const auto size = static_cast<size_t>(region.size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file_.descriptor(), region.offset);
  if (address == MAP_FAILED)
    fail<IoError>("{}: the file of weights cannot be mapped into memory: {}", directory_,
                  std::strerror(errno));
  region.address = static_cast<std::byte*>(address);
  regions_.push_back(std::move(region));
  regions_.back().known = std::make_unique<LiveMapping>(
      std::span<const std::byte>(regions_.back().address, size), directory_);
}

std::span<const std::byte> SpillFile::append(std::span<const std::byte> bytes) {
  const auto size = static_cast<int64_t>(bytes.size());
  check(size > 0, "SpillFile: nothing to append");
  if (regions_.empty() || regions_.back().used + size > regions_.back().size) add_region(size);
  Region& region = regions_.back();
  for (int64_t done = 0; done < size;) {
    const ssize_t written =
        pwrite(file_.descriptor(), bytes.data() + done, static_cast<size_t>(size - done),
               region.offset + region.used + done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      fail<IoError>("{}: weights cannot be written there: {}", directory_, std::strerror(errno));
    done += written;
  }
  const std::byte* address = region.address + region.used;
  region.used = rounded_up(region.used + size, kAlignment);
  bytes_ += size;
  return {address, bytes.size()};
}

void SpillFile::begin_page() {
  if (!regions_.empty()) regions_.back().used = rounded_up(regions_.back().used, kPage);
}

}  // namespace qlora::io

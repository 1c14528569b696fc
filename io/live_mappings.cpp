#include "io/live_mappings.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <csignal>
#include <cstring>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace qlora::io {
namespace {

// What a signal handler reads lies in place; `begin` is set last and cleared first.
struct Slot {
  std::atomic<const std::byte*> begin{nullptr};
  size_t size = 0;
  std::array<char, PATH_MAX> path{};
  bool is_named = false, is_watched = false;
  struct stat status {};
};
static_assert(std::atomic<const std::byte*>::is_always_lock_free);

constexpr int kSlots = 512;
std::array<Slot, kSlots> slots;

std::mutex& mutex() {
  static std::mutex mutex;
  return mutex;
}

int take_slot(std::span<const std::byte> bytes, std::string_view path, bool is_named,
              const struct stat* status) {
  const std::lock_guard lock(mutex());
  const auto free = std::ranges::find_if(slots, [](const Slot& s) { return s.begin == nullptr; });
  if (free == slots.end() || path.size() >= free->path.size()) return -1;
  free->size = bytes.size();
  *std::ranges::copy(path, free->path.begin()).out = '\0';
  free->is_named = is_named;
  free->is_watched = status != nullptr;
  if (status != nullptr) free->status = *status;
  free->begin.store(bytes.data(), std::memory_order_release);
  return static_cast<int>(free - slots.begin());
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool has_time_of(const struct stat& a, const struct stat& b) {
  return a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

std::function<bool()>& bytes_check() {
  static std::function<bool()> check;
  return check;
}

// A mapped file that was written to, or whose time was set.
struct Touched {
  Slot* slot;
  const std::byte* begin;
  struct stat now;
  std::string path;
};

[[noreturn]] void fail_as_changed(const char* path) {
  fail<IoError>(
      "{} was changed while it was in use: what was made of it is not what it would be from the "
      "file as it is now, and is not written; start again, and leave the file as it is meanwhile",
      path);
}

// IoError for one of another size.
std::vector<Touched> touched_files() {
  const std::lock_guard lock(mutex());
  std::vector<Touched> touched;
  for (Slot& slot : slots) {
    const std::byte* begin = slot.begin;
    struct stat now {};
    if (begin == nullptr || !slot.is_watched || stat(slot.path.data(), &now) != 0) continue;
    if (!is_same_file(slot.status, now)) continue;
    if (slot.status.st_size != now.st_size) fail_as_changed(slot.path.data());
    if (!has_time_of(slot.status, now)) touched.push_back({&slot, begin, now, slot.path.data()});
  }
  return touched;
}

void say(const char* text) {
  [[maybe_unused]] const auto written = write(STDERR_FILENO, text, std::strlen(text));
}

// Calls nothing but what a signal handler may.
void on_lost_page(int signal, siginfo_t* info, void*) {
  const auto* address = static_cast<const std::byte*>(info->si_addr);
  const bool by_access = info->si_code > 0;  // else somebody sent it
  for (const Slot& slot : slots) {
    const std::byte* begin = slot.begin.load(std::memory_order_acquire);
    if (!by_access || begin == nullptr || address < begin || address >= begin + slot.size) continue;
    const bool is_named = slot.is_named;
    char path[PATH_MAX];
    std::memcpy(path, slot.path.data(), sizeof(path));
    std::atomic_thread_fence(std::memory_order_acquire);
    // Another thread may have freed the slot and taken it for another mapping meanwhile.
    if (slot.begin.load(std::memory_order_relaxed) != begin) continue;
    say("\nerror: ");
    if (!is_named) say("a file of this program in ");
    say(path);
    say(is_named ? " became shorter, or its disk failed, while it was in use\n"
                 : " lost bytes: its disk is full or failed\n");
    _exit(1);
  }
  std::signal(signal, SIG_DFL);
  if (!by_access) raise(signal);  // else the access comes again
}

}  // namespace

LiveMapping::LiveMapping(std::span<const std::byte> bytes, const std::string& path,
                         const struct stat* status)
    : slot_(take_slot(bytes, path, true, status)) {}

LiveMapping::LiveMapping(std::span<const std::byte> bytes, const std::string& directory)
    : slot_(take_slot(bytes, directory, false, nullptr)) {}

LiveMapping::~LiveMapping() {
  const std::lock_guard lock(mutex());
  if (slot_ >= 0) slots[static_cast<size_t>(slot_)].begin = nullptr;
}

MappedBytesCheck::MappedBytesCheck(std::function<bool()> are_same)
    : before_(std::exchange(bytes_check(), std::move(are_same))) {}

MappedBytesCheck::~MappedBytesCheck() { bytes_check() = std::move(before_); }

void require_mapped_unchanged() {
  const std::vector<Touched> touched = touched_files();
  if (touched.empty()) return;
  if (!bytes_check())
    fail<IoError>(
        "{} was written to, or its time was set, while it was in use: what was made of it may not "
        "be what it would be from the file as it is now, and is not written; start again, and "
        "leave the file as it is meanwhile",
        touched.front().path);
  if (!bytes_check()()) fail_as_changed(touched.front().path.c_str());
  const std::lock_guard lock(mutex());
  for (const Touched& file : touched)
    if (file.slot->begin == file.begin) file.slot->status = file.now;
}

void report_lost_mappings() {
  struct sigaction action {};
  action.sa_sigaction = on_lost_page;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace qlora::io

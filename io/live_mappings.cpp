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

#include "base/error.h"

namespace qlora::io {
namespace {

// What a signal handler reads lies in place; `begin` is set last and cleared first.
struct Slot {
  std::atomic<const std::byte*> begin{nullptr};
  size_t size = 0;
  std::array<char, PATH_MAX> path{};
  bool is_named = false;
  struct stat status {};
};
static_assert(std::atomic<const std::byte*>::is_always_lock_free);

constexpr int kSlots = 512;
std::array<Slot, kSlots> slots;

std::mutex& mutex() {
  static std::mutex mutex;
  return mutex;
}

int take_slot(std::span<const std::byte> bytes, std::string_view path, const struct stat* status) {
  const std::lock_guard lock(mutex());
  const auto free = std::ranges::find_if(slots, [](const Slot& s) { return s.begin == nullptr; });
  if (free == slots.end() || path.size() >= free->path.size()) return -1;
  free->size = bytes.size();
  *std::ranges::copy(path, free->path.begin()).out = '\0';
  free->is_named = status != nullptr;
  if (status != nullptr) free->status = *status;
  free->begin.store(bytes.data(), std::memory_order_release);
  return static_cast<int>(free - slots.begin());
}

bool is_same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool is_unchanged(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec &&
         a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
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
    say("\nerror: ");
    if (!slot.is_named) say("a file of this program in ");
    say(slot.path.data());
    say(slot.is_named ? " became shorter, or its disk failed, while it was in use\n"
                      : " lost bytes: its disk is full or failed\n");
    _exit(1);
  }
  std::signal(signal, SIG_DFL);
  if (!by_access) raise(signal);  // else the access comes again
}

}  // namespace

LiveMapping::LiveMapping(std::span<const std::byte> bytes, const std::string& path,
                         const struct stat& status)
    : slot_(take_slot(bytes, path, &status)) {}

LiveMapping::LiveMapping(std::span<const std::byte> bytes, const std::string& directory)
    : slot_(take_slot(bytes, directory, nullptr)) {}

LiveMapping::~LiveMapping() {
  const std::lock_guard lock(mutex());
  if (slot_ >= 0) slots[static_cast<size_t>(slot_)].begin = nullptr;
}

void require_mapped_unchanged() {
  const std::lock_guard lock(mutex());
  for (const Slot& slot : slots) {
    struct stat now {};
    if (slot.begin == nullptr || !slot.is_named || stat(slot.path.data(), &now) != 0) continue;
    if (!is_same_file(slot.status, now) || is_unchanged(slot.status, now)) continue;
    fail<IoError>(
        "{} was changed while it was in use: what was made of it is not what it would be from the "
        "file as it is now, and is not written; start again, and leave the file as it is meanwhile",
        slot.path.data());
  }
}

void report_lost_mappings() {
  struct sigaction action {};
  action.sa_sigaction = on_lost_page;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace qlora::io

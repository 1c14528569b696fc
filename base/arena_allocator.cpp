#include "base/arena_allocator.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

#include "base/cgroup.h"
#include "base/out_of_memory.h"

namespace qlora {
namespace {

constexpr size_t kReserved = size_t{1} << 42;  // addresses, not memory
constexpr size_t kUnit = 4 << 10;              // sizes are rounded up to this

// More than this the machine, or the process's control group, does not keep: a size from a damaged
// file, say. Addresses are there for it, and the kernel would end the process while it fills them.
size_t largest_buffer() {
  struct sysinfo machine {};
  if (sysinfo(&machine) != 0) return kReserved;
  const size_t swap = machine.totalswap * machine.mem_unit;
  size_t memory = machine.totalram * machine.mem_unit;
  if (const auto group = group_limits().free_bytes)
    memory = std::min(memory, static_cast<size_t>(*group));
  return std::min(kReserved, memory + swap);
}

size_t rounded(size_t bytes) { return (bytes + kUnit - 1) / kUnit * kUnit; }

// The reserved range and its free and live pieces, as offsets. What lies past `end_` was never
// used.
class Arena {
 public:
  // Null if the system refuses.
  static Arena* reserve() {
    void* begin = mmap(nullptr, kReserved, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (begin == MAP_FAILED) return nullptr;
    madvise(begin, kReserved, MADV_HUGEPAGE);
    return new Arena(static_cast<char*>(begin));
  }

  void* allocate(size_t bytes) {
    if (bytes > largest_) throw OutOfMemory(bytes);
    const size_t size = rounded(bytes);
    const std::lock_guard lock(mutex_);
    size_t offset = end_;
    const auto fit = by_size_.lower_bound({size, 0});
    if (fit != by_size_.end()) {
      offset = fit->second;
      const size_t found = fit->first;
      remove_free(offset, found);
      if (found > size) add_free(offset + size, found - size);
    } else {
      // The last free piece may reach the end: it grows.
      if (!free_.empty() && free_.rbegin()->first + free_.rbegin()->second == end_) {
        offset = free_.rbegin()->first;
        remove_free(offset, free_.rbegin()->second);
      }
      if (offset + size > kReserved) throw OutOfMemory(bytes);
      end_ = offset + size;
    }
    live_.emplace(offset, size);
    used_ += size;
    peak_used_ = std::max(peak_used_, used_);
    return begin_ + offset;
  }

  void free(void* pointer) {
    const std::lock_guard lock(mutex_);
    const auto found = live_.find(static_cast<size_t>(static_cast<char*>(pointer) - begin_));
    if (found == live_.end()) {
      // As free() does with such a pointer: what else is wrong cannot be known.
      std::fputs("a tensor's memory was given back twice, or is not the allocator's\n", stderr);
      std::abort();
    }
    size_t offset = found->first, size = found->second;
    live_.erase(found);
    used_ -= size;
    auto next = free_.lower_bound(offset);
    if (next != free_.end() && offset + size == next->first) {
      size += next->second;
      remove_free(next->first, next->second);
    }
    next = free_.lower_bound(offset);
    if (next != free_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        size += before->second;
        remove_free(before->first, before->second);
      }
    }
    add_free(offset, size);
  }

  bool owns(const void* pointer) const { return pointer >= begin_ && pointer < begin_ + kReserved; }

  void release_free_pages() {
    const std::lock_guard lock(mutex_);
    for (const auto& [offset, size] : free_) madvise(begin_ + offset, size, MADV_DONTNEED);
  }

  ArenaStatistics statistics() {
    const std::lock_guard lock(mutex_);
    return {static_cast<int64_t>(used_), static_cast<int64_t>(peak_used_),
            static_cast<int64_t>(end_)};
  }

 private:
  explicit Arena(char* begin) : begin_(begin) {}

  void add_free(size_t offset, size_t size) {
    free_.emplace(offset, size);
    by_size_.emplace(size, offset);
  }
  void remove_free(size_t offset, size_t size) {
    free_.erase(offset);
    by_size_.erase({size, offset});
  }

  char* begin_;
  const size_t largest_ = largest_buffer();
  std::mutex mutex_;
  std::map<size_t, size_t> free_;                // offset -> size
  std::set<std::pair<size_t, size_t>> by_size_;  // (size, offset): the lowest of equals first
  std::unordered_map<size_t, size_t> live_;      // offset -> size
  size_t end_ = 0, used_ = 0, peak_used_ = 0;
};

Arena* arena = nullptr;

void delete_buffer(void* pointer) {
  if (arena != nullptr && arena->owns(pointer))
    arena->free(pointer);
  else
    c10::free_cpu(pointer);
}

struct ArenaAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* pointer = bytes >= kSmallBuffer ? arena->allocate(bytes) : c10::alloc_cpu(bytes);
    return {pointer, pointer, &delete_buffer, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &delete_buffer; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

void use_arena_for_cpu_tensors() {
  if (arena != nullptr) return;
  arena = Arena::reserve();
  if (arena == nullptr) return;
  static ArenaAllocator allocator;
  c10::SetCPUAllocator(&allocator, /*priority=*/1);
}

ArenaStatistics arena_statistics() {
  return arena == nullptr ? ArenaStatistics{} : arena->statistics();
}

void release_free_arena_pages() {
  if (arena != nullptr) arena->release_free_pages();
}

}  // namespace qlora

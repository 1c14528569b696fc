// Which pages of optimizer state stay on the device and how the others pass through it.
//
// A step visits all pages in the same order, for which any cache that keeps the most recent pages
// misses every time. So the first pages stay resident for good and the rest stream, window after
// window, through two slots at the end of the arena: while one window is updated the next is on its
// way. That moves the least a fixed arena allows: twice what does not fit.
//
//   arena:  | resident pages ................ | slot 0 | slot 1 |
//   host:   | streamed pages ............................................. |
//
// A window is a run of pages that are updated together (one launch); window 0 is the resident ones
// if there are any.
#pragma once

#include <cstdint>
#include <vector>

namespace qlora::optim {

struct PagePlan {
  struct Window {
    int64_t first_page = 0, last_page = 0;  // [first, last)
    int64_t bytes = 0;
    int64_t device_offset = 0;
    int64_t host_offset = -1;  // -1: resident
  };
  std::vector<Window> windows;
  std::vector<int64_t> page_offsets;  // of each page in its window
  std::vector<int64_t> page_windows;
  int64_t device_bytes = 0;
  int64_t host_bytes = 0;
};

// Pages start at multiples of this in arena and host memory.
constexpr int64_t kPageAlignment = 128;
int64_t aligned_page_bytes(int64_t bytes);

// The least arena that can hold pages of these sizes: everything, or two of the largest page.
int64_t least_arena_bytes(const std::vector<int64_t>& page_bytes);
// Error if the arena is smaller than that.
PagePlan plan_pages(const std::vector<int64_t>& page_bytes, int64_t arena_bytes);

}  // namespace qlora::optim

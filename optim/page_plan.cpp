#include "optim/page_plan.h"

#include <algorithm>

#include "base/error.h"

namespace qlora::optim {
namespace {

int64_t sum_of(const std::vector<int64_t>& pages) {
  int64_t sum = 0;
  for (const int64_t bytes : pages) sum += aligned_page_bytes(bytes);
  return sum;
}

int64_t largest_of(const std::vector<int64_t>& pages) {
  int64_t largest = 0;
  for (const int64_t bytes : pages) largest = std::max(largest, aligned_page_bytes(bytes));
  return largest;
}

// Appends one window of pages from `first` on, at least one, as long as they fit into `limit`
// bytes.
PagePlan::Window fill_window(PagePlan& plan, const std::vector<int64_t>& pages, int64_t first,
                             int64_t limit) {
  PagePlan::Window window{.first_page = first, .last_page = first};
  const auto count = static_cast<int64_t>(pages.size());
  while (window.last_page < count) {
    const int64_t bytes = aligned_page_bytes(pages[static_cast<size_t>(window.last_page)]);
    if (window.bytes + bytes > limit) break;
    plan.page_offsets.push_back(window.bytes);
    plan.page_windows.push_back(static_cast<int64_t>(plan.windows.size()));
    window.bytes += bytes;
    ++window.last_page;
  }
  return window;
}

}  // namespace

int64_t aligned_page_bytes(int64_t bytes) {
  return (bytes + kPageAlignment - 1) / kPageAlignment * kPageAlignment;
}

int64_t least_arena_bytes(const std::vector<int64_t>& page_bytes) {
  return std::min(sum_of(page_bytes), 2 * largest_of(page_bytes));
}

PagePlan plan_pages(const std::vector<int64_t>& page_bytes, int64_t arena_bytes) {
  const int64_t total = sum_of(page_bytes), largest = largest_of(page_bytes);
  check(arena_bytes >= least_arena_bytes(page_bytes),
        "plan_pages: the arena must hold at least {} bytes (two pages), got {}",
        least_arena_bytes(page_bytes), arena_bytes);
  PagePlan plan;
  if (total <= arena_bytes) {
    plan.windows.push_back(fill_window(plan, page_bytes, 0, total));
    plan.device_bytes = total;
    return plan;
  }
  // Larger windows mean fewer launches and copies, smaller ones more resident pages.
  const int64_t slot = std::max(largest, arena_bytes / 8 / kPageAlignment * kPageAlignment);
  PagePlan::Window resident = fill_window(plan, page_bytes, 0, arena_bytes - 2 * slot);
  if (resident.last_page > 0) plan.windows.push_back(resident);
  plan.device_bytes = resident.bytes + 2 * slot;
  const auto count = static_cast<int64_t>(page_bytes.size());
  for (int64_t page = resident.last_page, streamed = 0; page < count; ++streamed) {
    PagePlan::Window window = fill_window(plan, page_bytes, page, slot);
    window.device_offset = resident.bytes + streamed % 2 * slot;
    window.host_offset = plan.host_bytes;
    plan.host_bytes += window.bytes;
    page = window.last_page;
    plan.windows.push_back(window);
  }
  return plan;
}

}  // namespace qlora::optim

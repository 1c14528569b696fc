// Keeps optimizer state in an arena of fixed size on the device and the rest in host memory (pinned
// for a GPU), and brings each page in for its update (QLoRA section 3, paged optimizers). No
// managed memory: the copies are explicit, so their cost shows in the statistics and a page fault
// never stalls a kernel.
//
// On a GPU copies run on a stream of their own, ordered against the updates by events; on the CPU
// they are plain copies, which makes a forced small arena a test of the same bookkeeping. Which
// pages are resident never changes a result.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "optim/optimizer.h"
#include "optim/page_plan.h"

namespace qlora::optim {

class Pager {
 public:
  // Zero-filled pages.
  Pager(PagePlan plan, at::Device device);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  const PagePlan& plan() const { return plan_; }
  // Where a page lies on the device while its window is updated: the same place in every step.
  void* address(int64_t page) const;

  // Calls update(w) for each window w in order, while all its pages are at their addresses. The
  // update must be queued on the current stream.
  void for_each_window(const std::function<void(int64_t)>& update);

  // A page's bytes as a uint8 tensor on the CPU, and back. Both wait for the device.
  at::Tensor read(int64_t page, int64_t bytes) const;
  void write(int64_t page, const at::Tensor& bytes);

  const PagingStatistics& statistics() const { return statistics_; }

 private:
  struct SideStream;  // copies beside the updates; null on the CPU

  at::Tensor on_device(const PagePlan::Window& window) const;
  at::Tensor on_host(const PagePlan::Window& window) const;
  at::Tensor home(int64_t page, int64_t bytes) const;
  void load(int64_t window);
  void store(int64_t window);

  PagePlan plan_;
  at::Device device_;
  at::Tensor arena_, host_;  // uint8
  int64_t first_streamed_ = 0;
  std::unique_ptr<SideStream> side_;
  PagingStatistics statistics_;
};

}  // namespace qlora::optim

#include "optim/pager.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "base/device.h"
#include "base/error.h"

namespace qlora::optim {

// All copies are queued on one stream, so a load into a slot comes after the store that emptied it.
// Two events order them against the updates: a slot's update waits until it is loaded, its store
// until it is updated.
struct Pager::SideStream {
  explicit SideStream(at::Device device)
      : guard(device.type()), device(device), copies(guard.getStreamFromGlobalPool(device)) {}

  c10::Stream updates() const { return guard.getStream(device); }

  c10::impl::VirtualGuardImpl guard;
  at::Device device;
  c10::Stream copies;
  c10::Event loaded[2] = {c10::Event(device.type()), c10::Event(device.type())};
  c10::Event updated[2] = {c10::Event(device.type()), c10::Event(device.type())};
};

Pager::Pager(PagePlan plan, at::Device device) : plan_(std::move(plan)), device_(device) {
  arena_ = at::zeros({plan_.device_bytes}, at::dtype(at::kByte).device(device));
  host_ = at::zeros({plan_.host_bytes},
                    at::dtype(at::kByte).pinned_memory(device.is_cuda() && plan_.host_bytes > 0));
  first_streamed_ = !plan_.windows.empty() && plan_.windows[0].host_offset < 0 ? 1 : 0;
  if (device.is_cuda() && plan_.host_bytes > 0) {
    side_ = std::make_unique<SideStream>(device);
    synchronize(device);  // the zeros are written on another stream than the copies
  }
}

Pager::~Pager() {
  // Host memory must outlive the copies into it.
  if (side_) synchronize(device_);
}

void* Pager::address(int64_t page) const {
  const auto p = static_cast<size_t>(page);
  const PagePlan::Window& window = plan_.windows[static_cast<size_t>(plan_.page_windows[p])];
  return arena_.data_ptr<uint8_t>() + window.device_offset + plan_.page_offsets[p];
}

at::Tensor Pager::on_device(const PagePlan::Window& window) const {
  return arena_.narrow(0, window.device_offset, window.bytes);
}
at::Tensor Pager::on_host(const PagePlan::Window& window) const {
  return host_.narrow(0, window.host_offset, window.bytes);
}

void Pager::load(int64_t index) {
  const PagePlan::Window& window = plan_.windows[static_cast<size_t>(index)];
  statistics_.bytes_to_device += window.bytes;
  if (!side_) {
    on_device(window).copy_(on_host(window));
    return;
  }
  const c10::StreamGuard on_copies(side_->copies);
  on_device(window).copy_(on_host(window), /*non_blocking=*/true);
  side_->loaded[(index - first_streamed_) % 2].record(side_->copies);
}

void Pager::store(int64_t index) {
  const PagePlan::Window& window = plan_.windows[static_cast<size_t>(index)];
  statistics_.bytes_to_host += window.bytes;
  statistics_.evictions += window.last_page - window.first_page;
  if (!side_) {
    on_host(window).copy_(on_device(window));
    return;
  }
  c10::Event& updated = side_->updated[(index - first_streamed_) % 2];
  updated.record(side_->updates());
  updated.block(side_->copies);
  const c10::StreamGuard on_copies(side_->copies);
  on_host(window).copy_(on_device(window), /*non_blocking=*/true);
}

void Pager::for_each_window(const std::function<void(int64_t)>& update) {
  const auto count = static_cast<int64_t>(plan_.windows.size());
  for (int64_t w = first_streamed_; w < std::min(count, first_streamed_ + 2); ++w) load(w);
  for (int64_t w = 0; w < count; ++w) {
    const bool streamed = w >= first_streamed_;
    if (streamed && side_) side_->loaded[(w - first_streamed_) % 2].block(side_->updates());
    update(w);
    if (!streamed) continue;
    store(w);
    if (w + 2 < count) load(w + 2);
  }
}

at::Tensor Pager::home(int64_t page, int64_t bytes) const {
  const auto p = static_cast<size_t>(page);
  const PagePlan::Window& window = plan_.windows[static_cast<size_t>(plan_.page_windows[p])];
  const at::Tensor memory = window.host_offset < 0 ? on_device(window) : on_host(window);
  return memory.narrow(0, plan_.page_offsets[p], bytes);
}

at::Tensor Pager::read(int64_t page, int64_t bytes) const {
  synchronize(device_);
  return home(page, bytes).to(at::kCPU, at::kByte, /*non_blocking=*/false, /*copy=*/true);
}

void Pager::write(int64_t page, const at::Tensor& bytes) {
  synchronize(device_);
  home(page, bytes.numel()).copy_(bytes);
}

}  // namespace qlora::optim

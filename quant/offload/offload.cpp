#include "quant/offload/offload.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

#include "base/device.h"
#include "base/error.h"
#include "base/profile.h"
#include "io/mapped_file.h"
#include "io/spill_file.h"

namespace qlora::quant {
namespace {

constexpr int64_t kSlotAlignment = 256;
// Pinned memory is handed out in powers of two: many tensors share one such piece.
constexpr int64_t kHostChunk = int64_t{256} << 20;

int64_t aligned(int64_t bytes) {
  return (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
}

std::span<const std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

// The bytes as a tensor like `like` on the CPU, which nobody writes to.
at::Tensor tensor_over(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                       const at::Tensor& like) {
  return at::from_blob(
      const_cast<std::byte*>(bytes.data()), like.sizes(), [owner = std::move(owner)](void*) {},
      at::TensorOptions().dtype(like.scalar_type()));
}

at::Tensor flat_bytes(const at::Tensor& tensor) { return tensor.view({-1}).view(at::kByte); }

at::Tensor view_as(const at::Tensor& bytes, const at::Tensor& like) {
  return bytes.view(like.scalar_type()).view(like.sizes());
}

}  // namespace

// Copies are queued on one stream. A slot is filled once the products that read it are done, and a
// block is used once it has arrived.
struct Offload::SideStream {
  explicit SideStream(at::Device device)
      : guard(device.type()), device(device), copies(guard.getStreamFromGlobalPool(device)) {}

  c10::Stream products() const { return guard.getStream(device); }

  c10::impl::VirtualGuardImpl guard;
  at::Device device;
  c10::Stream copies;
  c10::Event arrived[2] = {c10::Event(device.type()), c10::Event(device.type())};
  c10::Event read[2] = {c10::Event(device.type()), c10::Event(device.type())};
};

Offload::Offload(at::Device device, std::shared_ptr<io::SpillFile> file,
                 std::shared_ptr<ShardGroup> ranks)
    : device_(device), file_(std::move(file)), ranks_(std::move(ranks)) {
  if (device.is_cuda()) side_ = std::make_unique<SideStream>(device);
}

Offload::~Offload() {
  // Host memory must outlive the copies from it. A gather with a rank that was lost never ends.
  const bool is_gathering =
      std::ranges::any_of(slots_, [](const Slot& slot) { return slot.arrival != nullptr; });
  if (side_ && !is_gathering) synchronize(device_);
}

OffloadedPart Offload::keep(at::Tensor& tensor, Home home, std::span<const std::byte> in_file,
                            std::shared_ptr<const void> owner) {
  check(home != Home::kDevice && tensor.is_contiguous() && tensor.numel() > 0,
        "Offload: a tensor to keep elsewhere must be contiguous and hold something");
  if (home == Home::kRanks) {
    check(ranks_ != nullptr, "Offload: there are no ranks to keep weights together");
    const auto shape = tensor.options().device(at::kMeta);
    return {&tensor, at::empty(tensor.sizes(), shape), false, true};
  }
  OffloadedPart part{&tensor, {}, home == Home::kDisk, home == Home::kHost || device_.is_cuda()};
  if (!in_file.empty())
    part.home = tensor_over(in_file, std::move(owner), tensor);
  else
    part.home = home == Home::kDisk ? keep_on_disk(tensor) : keep_in_host_memory(tensor);
  tensor = part.home;
  return part;
}

at::Tensor Offload::keep_on_disk(const at::Tensor& tensor) {
  check(file_ != nullptr, "Offload: there is no file for weights on disk");
  const at::Tensor bytes = tensor.cpu();
  return tensor_over(file_->append(bytes_of(bytes)), file_, tensor);
}

at::Tensor Offload::keep_in_host_memory(const at::Tensor& tensor) {
  const auto size = static_cast<int64_t>(tensor.nbytes());
  if (!host_chunk_.defined() || host_chunk_used_ + size > host_chunk_.numel()) {
    const int64_t chunk = device_.is_cuda() ? std::max(kHostChunk, size) : size;
    host_chunk_ = at::empty({chunk}, at::dtype(at::kByte).pinned_memory(device_.is_cuda()));
    host_chunk_used_ = 0;
  }
  at::Tensor home = view_as(host_chunk_.narrow(0, host_chunk_used_, size), tensor);
  host_chunk_used_ = aligned(host_chunk_used_ + size);
  home.copy_(tensor);
  return home;
}

template <typename Visit>
void Offload::for_each_part(int64_t block, const Visit& visit) {
  for (std::vector<OffloadedPart>* weight : blocks_[static_cast<size_t>(block)].weights)
    for (OffloadedPart& part : *weight) visit(part);
}

void Offload::add(int64_t block, std::vector<OffloadedPart>* parts) {
  check(block >= 0, "Offload: a block must have a number >= 0, found {}", block);
  if (block >= static_cast<int64_t>(blocks_.size())) blocks_.resize(static_cast<size_t>(block) + 1);
  if (slot_of(block) != nullptr) leave(block);
  Block& to = blocks_[static_cast<size_t>(block)];
  check(!to.shard.defined(), "Offload: block {} was dealt to the ranks already", block);
  to.weights.push_back(parts);
  to.slot_bytes = 0;  // others may have been removed
  for_each_part(block, [&to](OffloadedPart& part) {
    if (!part.copied) return;
    part.slot_offset = to.slot_bytes;
    to.slot_bytes += aligned(static_cast<int64_t>(part.home.nbytes()));
  });
  largest_ = std::max(largest_, to.slot_bytes);
}

void Offload::deal(int64_t block) {
  Block& whole = blocks_.at(static_cast<size_t>(block));
  const int64_t ranks = ranks_->size();
  const int64_t size = (whole.slot_bytes + ranks - 1) / ranks;
  const int64_t begin = ranks_->rank() * size;
  whole.shard = at::zeros({size}, at::dtype(at::kByte).device(device_));
  for_each_part(block, [&](OffloadedPart& part) {
    const at::Tensor bytes = flat_bytes(*part.tensor);
    const int64_t first = std::max(begin, part.slot_offset);
    const int64_t last = std::min(begin + size, part.slot_offset + bytes.numel());
    if (first < last)
      whole.shard.narrow(0, first - begin, last - first)
          .copy_(bytes.narrow(0, first - part.slot_offset, last - first));
    *part.tensor = part.home;
  });
  largest_ = std::max(largest_, ranks * size);
}

void Offload::remove(int64_t block, std::vector<OffloadedPart>* parts) {
  std::erase(blocks_[static_cast<size_t>(block)].weights, parts);
}

int64_t Offload::neighbour(int64_t block, int64_t step) const {
  const auto count = static_cast<int64_t>(blocks_.size());
  for (int64_t b = block + step; b >= 0 && b < count; b += step)
    if (!blocks_[static_cast<size_t>(b)].weights.empty()) return b;
  return -1;
}

Offload::Slot* Offload::slot_of(int64_t block) {
  const auto slot = std::ranges::find(slots_, block, &Slot::block);
  return slot == slots_.end() ? nullptr : &*slot;
}

Offload::Slot& Offload::slot_without(int64_t block) {
  return slots_[0].block == block ? slots_[1] : slots_[0];
}

void Offload::use(int64_t block) {
  if (block == used_) return;
  const at::NoGradGuard no_grad;
  if (slot_of(block) == nullptr) send_for(block, slot_without(used_));
  arrive(*slot_of(block));
  // The backward pass goes from a block to the one before it; all else goes forward.
  const int64_t step = used_ >= 0 && neighbour(used_, -1) == block ? -1 : 1;
  used_ = block;
  int64_t next = neighbour(block, step);
  if (next < 0) next = neighbour(block, -step);  // the turn
  if (next >= 0 && slot_of(next) == nullptr) send_for(next, slot_without(block));
}

void Offload::leave(int64_t block) {
  if (block >= static_cast<int64_t>(blocks_.size())) return;
  for_each_part(block, [](OffloadedPart& part) {
    *part.tensor = part.home;
    if (part.in_file) io::drop_touched_pages(bytes_of(part.home));
  });
  if (Slot* slot = slot_of(block)) {
    if (side_) side_->read[slot - slots_.data()].record(side_->products());
    slot->block = -1;
  }
  if (used_ == block) used_ = -1;
}

std::set<int64_t> Offload::near() const {
  std::set<int64_t> blocks;
  for (const Slot& slot : slots_)
    if (slot.block >= 0) blocks.insert(slot.block);
  return blocks;
}

int64_t Offload::written_bytes() const { return file_ ? file_->bytes() : 0; }

int64_t Offload::dealt_bytes() const {
  int64_t bytes = 0;
  for (const Block& block : blocks_)
    if (block.shard.defined()) bytes += block.shard.numel();
  return bytes;
}

int64_t Offload::slot_bytes() const {
  int64_t bytes = 0;
  for (const Slot& slot : slots_)
    if (slot.bytes.defined()) bytes += slot.bytes.numel();
  return bytes;
}

void Offload::make_room(Slot& slot) {
  if (slot.bytes.defined() && slot.bytes.numel() >= largest_) return;
  if (side_) synchronize(device_);  // copies to the old one may be under way
  slot.bytes = at::Tensor();
  slot.bytes = at::empty({largest_}, at::dtype(at::kByte).device(device_));
  if (side_) side_->read[&slot - slots_.data()].record(side_->products());
}

at::Tensor Offload::in_slot(const Slot& slot, const OffloadedPart& part) const {
  return view_as(slot.bytes.narrow(0, part.slot_offset, static_cast<int64_t>(part.home.nbytes())),
                 part.home);
}

void Offload::send_for(int64_t block, Slot& slot) {
  const ProfileScope scope("fetch weights");
  settle(slot);
  if (slot.block >= 0) leave(slot.block);
  const Block& from = blocks_[static_cast<size_t>(block)];
  if (from.slot_bytes > 0) make_room(slot);
  const auto index = &slot - slots_.data();
  std::optional<c10::StreamGuard> on_copies;
  if (side_) {
    side_->read[index].block(side_->copies);
    on_copies.emplace(side_->copies);
  }
  if (from.shard.defined())
    slot.arrival =
        ranks_->gather(from.shard, slot.bytes.narrow(0, 0, ranks_->size() * from.shard.numel()));
  else
    copy_parts(block, slot);
  if (side_) side_->arrived[index].record(side_->copies);
  slot.block = block;
}

void Offload::copy_parts(int64_t block, const Slot& slot) {
  for_each_part(block, [&](OffloadedPart& part) {
    if (part.in_file) io::read_ahead(bytes_of(part.home));
    if (!part.copied) return;
    in_slot(slot, part).copy_(part.home, /*non_blocking=*/true);
    if (part.in_file) io::drop_touched_pages(bytes_of(part.home));
  });
}

void Offload::settle(Slot& slot) {
  if (!slot.arrival) return;
  slot.arrival();
  slot.arrival = nullptr;
}

void Offload::arrive(Slot& slot) {
  settle(slot);
  if (side_) side_->arrived[&slot - slots_.data()].block(side_->products());
  for_each_part(slot.block, [&](OffloadedPart& part) {
    if (part.copied) *part.tensor = in_slot(slot, part);
  });
}

}  // namespace qlora::quant

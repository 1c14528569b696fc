// Blocks whose frozen weights lie elsewhere than on the device that multiplies by them: in host
// memory, pinned for a GPU, in a file, or in parts with the ranks of a run. They are fetched when
// they are used and dropped after it; of all of them two are near at a time, the one in use and the
// next in the order of the passes, forward or backward, which is on its way meanwhile.
//
//   home                 device   near
//   kHost                any      a copy in one of two slots, on a GPU made by a stream of its own
//   kDisk, file          GPU      the same, from the mapped file
//   kDisk, file          CPU      the file's pages: read ahead of use, dropped after
//   kRanks               any      the same of bytes, gathered from all ranks, of which each keeps
//                                 a part of every block on its device
//
// Where a weight lies changes no bit of what it gives. One thread uses an Offload at a time; on a
// GPU the stream of the products is the one that is current where a block is used. Ranks that keep
// blocks together use them in the same order.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "quant/offload/shard_group.h"

namespace qlora::io {
class SpillFile;
}

namespace qlora::quant {

enum class Home : uint8_t { kDevice, kHost, kDisk, kRanks };

// A tensor of an offloaded weight.
struct OffloadedPart {
  at::Tensor* tensor;  // in the weight: `home`, or the copy in a slot
  at::Tensor home;     // on the CPU, for good; of kRanks its shape and type, without numbers
  bool in_file;        // the bytes of `home` are those of a mapped file
  bool copied;         // to a slot, for use
  int64_t slot_offset = 0;
};

class Offload {
 public:
  // `file`: for weights that are kept on disk and lie in no file yet; may be null where there are
  // none. `ranks`: for those that are kept together; may be null likewise.
  Offload(at::Device device, std::shared_ptr<io::SpillFile> file,
          std::shared_ptr<ShardGroup> ranks = nullptr);
  ~Offload();
  Offload(const Offload&) = delete;
  Offload& operator=(const Offload&) = delete;

  at::Device device() const { return device_; }

  // A copy of the tensor at home, kHost or kDisk, which is no copy where `in_file` says where equal
  // bytes lie already, with `owner` keeping them. One of kRanks stays as it is until its block is
  // dealt. IoError if the disk is full.
  OffloadedPart keep(at::Tensor& tensor, Home home, std::span<const std::byte> in_file,
                     std::shared_ptr<const void> owner);

  // The parts of a weight of block `block`, >= 0; blocks are used in the order of their numbers.
  // They stay the caller's, until remove().
  void add(int64_t block, std::vector<OffloadedPart>* parts);
  void remove(int64_t block, std::vector<OffloadedPart>* parts);

  // Of a block whose weights are all there, kept in kRanks: leaves this rank its part of their
  // bytes. None can be added after that.
  void deal(int64_t block);
  bool is_dealt(int64_t block) const { return blocks_[static_cast<size_t>(block)].shard.defined(); }

  // Makes the block's tensors ready for products on device(), and sends for the next block.
  void use(int64_t block);
  // Puts the block's tensors back home and drops the pages of those that lie in a file.
  void leave(int64_t block);

  // Which blocks are near.
  std::set<int64_t> near() const;
  // Bytes that lie in the file because the model's own does not have them.
  int64_t written_bytes() const;
  // Bytes on the device: of this rank's parts of the blocks that were dealt, and of the two slots.
  int64_t dealt_bytes() const;
  int64_t slot_bytes() const;

 private:
  struct Block {
    std::vector<std::vector<OffloadedPart>*> weights;
    int64_t slot_bytes = 0;
    at::Tensor shard;  // uint8, this rank's part of them once they were dealt
  };
  struct Slot {
    int64_t block = -1;             // -1: empty
    at::Tensor bytes;               // uint8, as many as any block's copied parts take
    std::function<void()> arrival;  // waits for the gather that is under way; empty: none is
  };
  struct SideStream;

  at::Tensor keep_in_host_memory(const at::Tensor& tensor);
  at::Tensor keep_on_disk(const at::Tensor& tensor);
  template <typename Visit>
  void for_each_part(int64_t block, const Visit& visit);
  // The nearest block with weights before (step -1) or behind (1) this one; -1: none.
  int64_t neighbour(int64_t block, int64_t step) const;
  Slot* slot_of(int64_t block);
  // The slot that holds neither block, or does not matter.
  Slot& slot_without(int64_t block);
  void send_for(int64_t block, Slot& slot);
  void copy_parts(int64_t block, const Slot& slot);
  // Waits until nobody writes to the slot.
  static void settle(Slot& slot);
  void arrive(Slot& slot);
  void make_room(Slot& slot);
  at::Tensor in_slot(const Slot& slot, const OffloadedPart& part) const;

  at::Device device_;
  std::shared_ptr<io::SpillFile> file_;
  std::shared_ptr<ShardGroup> ranks_;
  std::vector<Block> blocks_;
  std::array<Slot, 2> slots_;
  int64_t used_ = -1;  // the block in use
  int64_t largest_ = 0;
  at::Tensor host_chunk_;
  int64_t host_chunk_used_ = 0;
  std::unique_ptr<SideStream> side_;  // null on the CPU
};

}  // namespace qlora::quant

// The ranks of a run and what they do together. Every rank calls the same functions in the same
// order; what they send is theirs alone, so a private network is to lie between them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/error.h"
#include "distributed/place.h"

namespace c10d {
class Backend;
}

namespace qlora::distributed {

// Another rank is gone, has failed and said why, or is silent for longer than the group is patient.
// The group is of no use after that.
struct LostRank : Error {
  using Error::Error;
};

// The stage of sums and of waiting for what is gathered (base/profile.h): adding and sending, and
// waiting for the other ranks.
constexpr char kCommunication[] = "communication";

// What is on its way between the ranks. Must not outlive its group.
class Transfer {
 public:
  Transfer() = default;  // of nothing, which is there
  // `arrive` returns when it is there, or throws LostRank.
  explicit Transfer(std::function<void()> arrive) : arrive_(std::move(arrive)) {}

  // Returns when it is there: on a GPU, what the current stream does from then on finds it.
  // LostRank. After that it returns at once.
  void wait() {
    if (arrive_) std::exchange(arrive_, nullptr)();
  }

 private:
  std::function<void()> arrive_;
};

class Group {
 public:
  // What sum() adds at a time of a longer tensor: what its buffers hold.
  static constexpr int64_t kNumbersAtOnce = int64_t{8} << 20;

  // One rank: nothing is connected, and every call returns at once.
  Group();
  // Connects all ranks of the place; returns when they are there. Tensors on a GPU travel by NCCL
  // where each rank of a machine has a GPU of its own, and else through the host. LostRank naming
  // MASTER_ADDR and MASTER_PORT if they do not meet within `patience`; Stopped, on all that have
  // come, if one of them is to stop before.
  // From then on the process ignores SIGPIPE, by which a rank that is gone would end the others.
  Group(const Place& place, std::chrono::milliseconds patience);
  ~Group();
  Group(Group&&) noexcept;
  Group& operator=(Group&&) noexcept;

  const Place& place() const { return place_; }
  int rank() const { return place_.rank; }
  int size() const { return place_.size; }
  // Whether this rank writes the run's files and speaks to the user.
  bool leads() const { return place_.rank == 0; }

  // Adds the tensors of all ranks, fp32 or fp64, contiguous and of one size, in place: in pairs of
  // neighbours, then pairs of these, and so on. The bits depend on the number of ranks alone, not
  // on the network, and they are the same on every rank. Keeps two buffers of the size of the
  // largest tensor so far, but of kNumbersAtOnce numbers at most, on each kind of device.
  void sum(const at::Tensor& numbers);
  // Everyone gets what the rank `from` has, contiguous.
  void broadcast(const at::Tensor& tensor, int from = 0);
  std::string broadcast(const std::string& text, int from = 0);
  // ConfigError on all ranks, naming the first whose text is not rank 0's, and of both texts the
  // first lines that differ: "rank 2 has 5f0a, rank 0 has 77b1". `what`: "the base model".
  void require_same(const std::string& what, const std::string& text);
  // Starts to bring the shards of all ranks, one after another in the order of the ranks, to
  // `whole`, as bytes. Both are contiguous and on one device, shards are of one size on all ranks,
  // and `whole` is as many times as large. Until wait() has returned neither may be written to;
  // other calls may come between.
  Transfer gather(const at::Tensor& shard, const at::Tensor& whole);
  // Whether any rank says so.
  bool any(bool here);
  // Waits until all ranks are here.
  void meet();

  // To be called where this rank leaves by an error that is no LostRank: the others, when they next
  // wait for it, throw LostRank with `why` at once ("rank 0 failed: the disk is full"). Rank 0,
  // with whom the news would go, stays for some seconds until they have heard it. The group is of
  // no use after that. Does not throw.
  void fail_together(const std::string& why) noexcept;
  // The same where this rank is to stop and leaves in the middle of `phase`: the others throw
  // Stopped in the phase "with rank 1: tokenizing rows.jsonl".
  void stop_together(const std::string& phase) noexcept;

 private:
  struct Engines;
  struct Buffers;

  // Whether an engine carries the tensor as it lies; else it goes through the host.
  bool travels_alone(const at::Tensor& tensor);
  c10d::Backend& engine_of(const at::Tensor& tensor);
  void leave_with(const std::string& why, bool stopped) noexcept;
  // Of one dimension, and as an engine carries them.
  void sum_at_once(const at::Tensor& numbers);

  Place place_;
  std::chrono::milliseconds patience_{0};
  std::unique_ptr<Engines> engines_;
};

}  // namespace qlora::distributed

// The ranks of a run and what they do together. Every rank calls the same functions in the same
// order; what they send is theirs alone, so a private network is to lie between them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <chrono>
#include <memory>
#include <string>

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

// The stage of sums (base/profile.h): adding and sending, and waiting for the other ranks.
constexpr char kCommunication[] = "communication";

class Group {
 public:
  // One rank: nothing is connected, and every call returns at once.
  Group();
  // Connects all ranks of the place; returns when they are there. Tensors on a GPU travel by NCCL
  // where each rank of a machine has a GPU of its own, and else through the host. LostRank naming
  // MASTER_ADDR and MASTER_PORT if they do not meet within `patience`.
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
  // largest tensor so far, on each kind of device.
  void sum(const at::Tensor& numbers);
  // Everyone gets what the rank `from` has, contiguous.
  void broadcast(const at::Tensor& tensor, int from = 0);
  std::string broadcast(const std::string& text, int from = 0);
  // ConfigError on all ranks, naming the first whose text is not rank 0's, and of both texts the
  // first lines that differ: "rank 2 has 5f0a, rank 0 has 77b1". `what`: "the base model".
  void require_same(const std::string& what, const std::string& text);
  // Waits until all ranks are here.
  void meet();

  // To be called where this rank leaves by an error that is no LostRank: the others, when they next
  // wait for it, throw LostRank with `why` at once ("rank 0 failed: the disk is full"). Rank 0,
  // with whom the news would go, stays for some seconds until they have heard it. The group is of
  // no use after that. Does not throw.
  void fail_together(const std::string& why) noexcept;

 private:
  struct Engines;
  struct Buffers;

  // Whether an engine carries the tensor as it lies; else it goes through the host.
  bool travels_alone(const at::Tensor& tensor);
  c10d::Backend& engine_of(const at::Tensor& tensor);
  // Of numbers that an engine carries as they lie.
  void sum_in_parts(const at::Tensor& numbers);

  Place place_;
  std::chrono::milliseconds patience_{0};
  std::unique_ptr<Engines> engines_;
};

}  // namespace qlora::distributed

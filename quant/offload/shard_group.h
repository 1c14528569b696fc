// The processes that keep a base together (Home::kRanks), each a part of every block: what an
// Offload needs of them, whoever connects them (trainer/shard_group.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace qlora::quant {

class ShardGroup {
 public:
  virtual ~ShardGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Starts to bring the ranks' shards, in their order, to `whole`: uint8 [n] and [size() * n], on
  // one device. All ranks call it in the same order. The function returned is called once, and
  // returns when `whole` may be read.
  virtual std::function<void()> gather(const at::Tensor& shard, const at::Tensor& whole) = 0;
};

}  // namespace qlora::quant

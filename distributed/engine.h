// What carries tensors between ranks: c10d's Gloo for those on the CPU, NCCL for those on a GPU.
// Both come with LibTorch.
#pragma once

#include <c10/core/Device.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>

#include "distributed/place.h"

namespace qlora::distributed {

using Engine = c10::intrusive_ptr<c10d::Backend>;
using Store = c10::intrusive_ptr<c10d::Store>;

// The store where the ranks meet. `patience`: how long a rank waits for the others. Stopped if a
// stop is wanted before the one who serves it is there.
Store open_store(const Place& place, std::chrono::milliseconds patience);

// Connects the ranks. Gloo listens on the address of this machine that faces the store's, unless
// GLOO_SOCKET_IFNAME names an interface.
Engine gloo_engine(const Store& store, const Place& place, std::chrono::milliseconds patience);

// Error if the program was built without CUDA.
Engine nccl_engine(const Store& store, const Place& place, std::chrono::milliseconds patience);

}  // namespace qlora::distributed

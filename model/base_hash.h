// XXH3-128 over the names and bytes of a model's frozen tensors, in the order of
// CausalLm::frozen_state(): an adapter records the base it belongs to. Fed bit by bit, so that the
// tensors need not be in memory together.
#pragma once

#include <cstdint>
#include <string>

#include "io/hashing.h"
#include "quant/frozen_weight.h"

namespace qlora::model {

class BaseHasher {
 public:
  void add(const quant::NamedTensors& tensors);
  std::string hex() const { return hasher_.hex(); }
  // Of all tensors so far.
  int64_t bytes() const { return bytes_; }

 private:
  io::Hasher hasher_;
  int64_t bytes_ = 0;
};

}  // namespace qlora::model

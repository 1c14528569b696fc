// Rotary position embedding (Su et al. 2021, section 3.2): two elements x1, x2 of a head turn
// together, out = (x1 cos - x2 sin, x2 cos + x1 sin). They are the halves of what turns of a head,
// or neighbours. Tables and arithmetic are fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "model/rope_config.h"

namespace qlora::model {

// cos and sin at some positions, times the scaling's attention factor: each fp32 [tokens, width /
// 2].
struct RotaryTable {
  at::Tensor cos, sin;
  bool pairs = false;    // as in RotarySpec
  int64_t head_dim = 0;  // 0: whole heads turn, and are as wide as the table says
};

class Rotary {
 public:
  Rotary(RotarySpec spec, int64_t head_dim, at::Device device);

  // positions [tokens]. Where frequencies depend on the length of a document, that is its largest
  // position and one; documents [cu_seqlens[d], cu_seqlens[d + 1]) are told apart by `cu_seqlens`,
  // empty for a single one.
  RotaryTable at_positions(const std::vector<int32_t>& positions,
                           const std::vector<int32_t>& cu_seqlens = {}) const;

 private:
  // fp32 [width / 2], or [tokens, width / 2] where documents differ.
  at::Tensor frequencies(const std::vector<int32_t>& positions,
                         const std::vector<int32_t>& cu_seqlens) const;

  RotarySpec spec_;
  int64_t head_dim_;
  at::Tensor inverse_frequencies_;  // fp32 [width / 2], of a short document
};

// x [tokens, heads * head_dim] in the compute dtype, rows contiguous, rotated where it lies, out of
// autograd's sight; `inverse` turns the other way, by the same factor: the backward pass.
at::Tensor rotate(at::Tensor x, const RotaryTable& table, bool inverse);
// The same of queries and keys, of one type, whose numbers of heads may differ: one launch on a
// GPU.
void rotate(const at::Tensor& q, const at::Tensor& k, const RotaryTable& table, bool inverse);

}  // namespace qlora::model

// Positions as T5 knows them (Raffel et al. 2020): a learned number for each head and bucket of
// distances is added to a score. Half of a direction's buckets are for one distance each, the
// others for ever longer ranges, the last for all from `max_distance` on.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace qlora::model {

struct RelativeBiasSpec {
  // Of the table [buckets, heads] in Hugging Face files, and in GGUF files.
  std::string module = {}, gguf_module = {};
  int64_t buckets = 0, heads = 0, max_distance = 128;
  bool bidirectional = false;  // keys behind the query have half of the buckets; else the first

  bool present() const { return buckets > 0; }
  std::string tensor() const { return module + ".weight"; }
};

// Of a key that is `distance` positions behind the query (before it if negative).
int64_t relative_bucket(int64_t distance, const RelativeBiasSpec& spec);

// A stack's table, frozen, and what was last made of it.
class RelativeBias {
 public:
  at::Tensor table;  // [buckets, heads]

  // fp32 [heads, 2 reach - 1], on the table's device, for a reach of `positions` or more: column
  // reach - 1 + d is the bias of a key at distance d. Undefined if the spec has no buckets.
  at::Tensor by_distance(const RelativeBiasSpec& spec, int64_t positions);

 private:
  at::Tensor biases_;
};

}  // namespace qlora::model

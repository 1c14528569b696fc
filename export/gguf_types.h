// Which type each tensor of a GGUF file gets: the choices of llama.cpp's quantizer without an
// importance matrix (llama-quant.cpp), for the types that quant/gguf/gguf_quantize.h writes.
//
//   f32, f16, bf16          all matrices in that type
//   q8_0 ... q6_k           all matrices, but the head, or the embedding that is also the head, is
//                           Q6_K (of q8_0: Q8_0; of Falcon: Q8_0)
//   q4_k_m, q5_k_m          Q4_K, Q5_K; in about half of the layers attn_v and ffn_down are Q6_K
//
// Norms, biases, routers and learned positions are F32 in all of them. Rows that are no multiple of
// 256 go from Q4_K to Q5_0, from Q5_K to Q5_1, from Q6_K to Q8_0; those that are no multiple of 32
// to F16.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/dtype.h"
#include "model/gguf_description.h"

namespace qlora::exporting {

struct GgufType {
  std::string name;  // "q4_k_m"
  io::DType dtype;   // of most matrices
  int64_t number;    // general.file_type

  bool is_quantized() const { return io::is_block_type(dtype); }
};

// ConfigError that lists the known ones, naming --type.
const GgufType& gguf_type(const std::string& name);

class GgufTypes {
 public:
  // `description.model` says whether head and embedding are tied.
  GgufTypes(const GgufType& type, const model::GgufDescription& description);
  // Of "blk.3.attn_v.weight" [out, in].
  io::DType of(const std::string& tensor, const std::vector<int64_t>& shape) const;
  // What it would be if its rows filled whole blocks.
  io::DType of_whole_blocks(const std::string& tensor, const std::vector<int64_t>& shape) const;

 private:
  // Where a tensor stands among its like, and how many these are.
  struct Place {
    int64_t index, count;
  };

  io::DType chosen(const std::string& tensor, int64_t columns) const;
  io::DType of_values(Place place) const;
  io::DType of_down(Place place) const;
  Place place_of_values(const std::string& tensor) const;
  Place place_of_down(const std::string& tensor) const;

  const GgufType& type_;
  bool is_falcon_, is_tied_, has_eight_experts_, is_70b_;
  int64_t num_layers_;  // of an encoder, if there is one
  // Of a model with an encoder, in the order of their names.
  std::vector<std::string> values_, downs_;
};

}  // namespace qlora::exporting

// Keys and values of the tokens so far, per layer and sequence, for generation. Sequences have
// lengths of their own.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace qlora::model {

class KvCache {
 public:
  // Room for `capacity` tokens in each of `sequences` sequences. A layer's keys of a token are
  // `widths[layer]` elements, kv_heads * head_dim, and so are its values.
  KvCache(const std::vector<int64_t>& widths, int64_t sequences, int64_t capacity,
          at::ScalarType dtype, at::Device device);

  // Puts `count` tokens' k and v [count, kv_heads * head_dim] of one layer behind the sequence's
  // length (which `advance` moves once all layers are done). Error if they do not fit.
  void append(int64_t layer, int64_t sequence, const at::Tensor& k, const at::Tensor& v);
  // The same for all sequences at once, with rows [cu_seqlens[s], cu_seqlens[s + 1]) of k and v for
  // sequence s; on the CPU.
  void append_each(int64_t layer, const std::vector<int32_t>& cu_seqlens, const at::Tensor& k,
                   const at::Tensor& v);
  // The first `length` tokens of a sequence: [length, kv_heads * head_dim].
  at::Tensor keys(int64_t layer, int64_t sequence, int64_t length) const;
  at::Tensor values(int64_t layer, int64_t sequence, int64_t length) const;

  // Keys and values of a layer's cross-attention, of all sequences' sources laid end to end, as
  // encoded_seqlens() says.
  void keep_encoded(int64_t layer, std::vector<at::Tensor> keys_and_values);
  const std::vector<at::Tensor>& encoded(int64_t layer) const;
  const std::vector<int32_t>& encoded_seqlens() const { return encoded_seqlens_; }
  void set_encoded_seqlens(std::vector<int32_t> seqlens) { encoded_seqlens_ = std::move(seqlens); }

  int64_t length(int64_t sequence) const { return lengths_[static_cast<size_t>(sequence)]; }
  // Negative: back, as if its last tokens had not been seen.
  void advance(int64_t sequence, int64_t count) {
    lengths_[static_cast<size_t>(sequence)] += count;
  }
  // As if none of the sequence's tokens had been seen.
  void forget(int64_t sequence) { lengths_[static_cast<size_t>(sequence)] = 0; }
  int64_t num_sequences() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t capacity() const { return capacity_; }
  // Keeps only these sequences, in this order: the finished ones leave the batch.
  void keep(const std::vector<int64_t>& sequences);
  // Takes what another cache has of the sources.
  void take_encoded(KvCache& other);

 private:
  void keep_sources(const std::vector<int64_t>& sequences);

  int64_t capacity_;
  std::vector<at::Tensor> keys_, values_;  // per layer [sequences, capacity, kv_heads * head_dim]
  std::vector<int64_t> lengths_;
  std::vector<std::vector<at::Tensor>> encoded_;  // per layer, as far as it has cross-attention
  std::vector<int32_t> encoded_seqlens_;
};

}  // namespace qlora::model

#include "model/kv_cache.h"

#include <ATen/ATen.h>

#include <cstring>

#include "base/error.h"

namespace qlora::model {

KvCache::KvCache(const std::vector<int64_t>& widths, int64_t sequences, int64_t capacity,
                 at::ScalarType dtype, at::Device device)
    : capacity_(capacity), lengths_(static_cast<size_t>(sequences), 0) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  for (const int64_t width : widths) {
    keys_.push_back(at::empty({sequences, capacity, width}, options));
    values_.push_back(at::empty_like(keys_.back()));
  }
}

void KvCache::append(int64_t layer, int64_t sequence, const at::Tensor& k, const at::Tensor& v) {
  const int64_t begin = length(sequence), count = k.size(0);
  check(begin + count <= capacity_, "KvCache: sequence {} needs {} tokens, there is room for {}",
        sequence, begin + count, capacity_);
  const auto i = static_cast<size_t>(layer);
  keys_[i].select(0, sequence).narrow(0, begin, count).copy_(k);
  values_[i].select(0, sequence).narrow(0, begin, count).copy_(v);
}

void KvCache::append_each(int64_t layer, const std::vector<int32_t>& cu_seqlens,
                          const at::Tensor& k, const at::Tensor& v) {
  const auto i = static_cast<size_t>(layer);
  const auto put = [&](const at::Tensor& rows, const at::Tensor& cache) {
    check(rows.is_cpu() && rows.size(0) == cu_seqlens.back() && rows.size(1) == cache.size(2) &&
              rows.stride(1) == 1 && rows.scalar_type() == cache.scalar_type(),
          "KvCache: new tokens of all sequences need [{}, {}] on the CPU in the cache's dtype",
          cu_seqlens.back(), cache.size(2));
    const auto element = static_cast<int64_t>(rows.element_size());
    const int64_t bytes = rows.size(1) * element;
    const auto* from = static_cast<const char*>(rows.const_data_ptr());
    auto* to = static_cast<char*>(cache.mutable_data_ptr());
    for (int64_t s = 0; s < num_sequences(); ++s) {
      const int64_t begin = cu_seqlens[static_cast<size_t>(s)],
                    end = cu_seqlens[static_cast<size_t>(s) + 1];
      check(length(s) + end - begin <= capacity_,
            "KvCache: sequence {} needs {} tokens, there is room for {}", s,
            length(s) + end - begin, capacity_);
      for (int64_t row = begin; row < end; ++row)
        std::memcpy(to + (s * capacity_ + length(s) + row - begin) * bytes,
                    from + row * rows.stride(0) * element, static_cast<size_t>(bytes));
    }
  };
  check(static_cast<int64_t>(cu_seqlens.size()) == num_sequences() + 1,
        "KvCache: {} sequences need as many documents, got {}", num_sequences(),
        cu_seqlens.size() - 1);
  put(k, keys_[i]);
  put(v, values_[i]);
}

at::Tensor KvCache::keys(int64_t layer, int64_t sequence, int64_t length) const {
  return keys_[static_cast<size_t>(layer)].select(0, sequence).narrow(0, 0, length);
}

at::Tensor KvCache::values(int64_t layer, int64_t sequence, int64_t length) const {
  return values_[static_cast<size_t>(layer)].select(0, sequence).narrow(0, 0, length);
}

void KvCache::keep(const std::vector<int64_t>& sequences) {
  const at::Tensor index = at::tensor(sequences, at::kLong).to(keys_.front().device());
  for (auto* tensors : {&keys_, &values_})
    for (at::Tensor& t : *tensors) t = t.index_select(0, index);
  std::vector<int64_t> lengths;
  for (int64_t s : sequences) lengths.push_back(length(s));
  lengths_ = std::move(lengths);
  if (!encoded_seqlens_.empty()) keep_sources(sequences);
}

void KvCache::keep_encoded(int64_t layer, std::vector<at::Tensor> keys_and_values) {
  encoded_.resize(keys_.size());
  encoded_[static_cast<size_t>(layer)] = std::move(keys_and_values);
}

const std::vector<at::Tensor>& KvCache::encoded(int64_t layer) const {
  const auto i = static_cast<size_t>(layer);
  check(i < encoded_.size() && !encoded_[i].empty(),
        "KvCache: layer {} has no keys of the encoder's output", layer);
  return encoded_[i];
}

void KvCache::take_encoded(KvCache& other) {
  encoded_ = std::move(other.encoded_);
  encoded_seqlens_ = std::move(other.encoded_seqlens_);
}

void KvCache::keep_sources(const std::vector<int64_t>& sequences) {
  std::vector<int64_t> rows;
  std::vector<int32_t> seqlens = {0};
  for (const int64_t s : sequences) {
    const auto i = static_cast<size_t>(s);
    for (int32_t row = encoded_seqlens_[i]; row < encoded_seqlens_[i + 1]; ++row)
      rows.push_back(row);
    seqlens.push_back(static_cast<int32_t>(rows.size()));
  }
  encoded_seqlens_ = std::move(seqlens);
  const at::Tensor index = at::tensor(rows, at::kLong).to(keys_.front().device());
  for (std::vector<at::Tensor>& layer : encoded_)
    for (at::Tensor& x : layer) x = x.index_select(0, index);
}

}  // namespace qlora::model

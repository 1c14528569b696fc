#include "recipes/exports/activation_store.h"

#include <ATen/ATen.h>

namespace qlora::recipes {

ActivationStore::ActivationStore(const std::vector<int64_t>& tokens, int64_t width,
                                 int64_t most_bytes, const std::string& directory)
    : tokens_(tokens) {
  int64_t rows = 0;
  for (const int64_t count : tokens_) {
    first_row_.push_back(rows);
    rows += count;
  }
  const int64_t bytes = rows * width * static_cast<int64_t>(sizeof(float));
  if (bytes <= most_bytes) {
    all_ = at::empty({rows, width}, at::kFloat);
    return;
  }
  file_ = std::make_unique<io::ScratchMemory>(directory, static_cast<size_t>(bytes));
  all_ = at::from_blob(file_->bytes().data(), {rows, width}, at::TensorOptions(at::kFloat));
}

at::Tensor ActivationStore::of_sequence(size_t index) const {
  return all_.narrow(0, first_row_.at(index), tokens_.at(index));
}

}  // namespace qlora::recipes

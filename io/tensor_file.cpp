#include "io/tensor_file.h"

namespace qlora::io {

void TensorFile::index_tensors() {
  index.clear();
  for (size_t i = 0; i < tensors.size(); ++i) index.emplace(tensors[i].name, i);
}

void TensorFile::rename(const std::function<std::string(const std::string&)>& name_of) {
  for (TensorView& tensor : tensors) tensor.name = name_of(tensor.name);
  index_tensors();
}

const TensorView* TensorFile::find(const std::string& name) const {
  const auto found = index.find(name);
  return found == index.end() ? nullptr : &tensors[found->second];
}

}  // namespace qlora::io

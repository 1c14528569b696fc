#include "io/tensor_file.h"

#include "base/error.h"

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

const TensorView& TensorFile::at(const std::string& name) const {
  if (const TensorView* view = find(name)) return *view;
  if (tensors.empty()) fail<FormatError>("there must be a tensor {}, and there are none", name);
  fail<FormatError>("{}: there must be a tensor {}; the first one is {}", tensors.front().file,
                    name, tensors.front().name);
}

}  // namespace qlora::io

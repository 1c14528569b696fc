// The tensors of one file, or of all files of a model, found by their names.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "io/tensor_view.h"

namespace qlora::io {

// Names of tensors, in their order, to where they stand in a list.
using TensorIndex = std::map<std::string, size_t>;

struct TensorFile {
  std::vector<TensorView> tensors;              // in the order in which the file has them
  std::map<std::string, std::string> metadata;  // "__metadata__"
  TensorIndex index;                            // of `tensors`

  // nullptr if there is none of that name.
  const TensorView* find(const std::string& name) const;
  // FormatError, naming the file, if there is none of that name.
  const TensorView& at(const std::string& name) const;
  // Makes `index` that of `tensors`; of two of one name find() has the first.
  void index_tensors();
  // Gives every tensor the name that name_of() makes of its own; of two that become alike find()
  // has the first.
  void rename(const std::function<std::string(const std::string&)>& name_of);
};

}  // namespace qlora::io

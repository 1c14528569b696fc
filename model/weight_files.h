// The two kinds of files that open_weights() opens.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "io/tensor_view.h"
#include "model/weight_source.h"

namespace qlora::model {

std::unique_ptr<WeightSource> open_hugging_face_directory(const std::string& directory);
std::unique_ptr<WeightSource> open_gguf_file(const std::string& path);

// The path of a directory's config.json. FormatError if it is not there; it says what to do.
std::string config_file(const std::string& directory);

// The tensors of a file that are not among those that were read.
std::vector<std::string> names_but(const std::vector<io::TensorView>& tensors,
                                   const std::set<std::string>& read);
// WeightSource::dtype() of these tensors.
at::ScalarType matrices_dtype(const std::vector<io::TensorView>& tensors);

}  // namespace qlora::model

// The weights of a model, in whichever files they lie.
#pragma once

#include <string>

#include "io/tensor_file.h"

namespace qlora::io {

// The tensors of the first of these files that is there:
//   model.safetensors, model.safetensors.index.json,
//   pytorch_model.bin, pytorch_model.bin.index.json   as transformers looks for them
//   the file of quantize_config.json                  AutoGPTQ's: model_file_base_name, or else
//                                                     gptq_model-4bit-128g by bits and group_size,
//                                                     or the only .safetensors file
//   qmodel.pt                                         hqq's
// An index names shards, and each named tensor must be in the shard that the index says. Of tensors
// of one name in several shards that of the last is taken. Warns if an index lies beside the one
// file, or an adapter beside the weights, and of tensors that the index does not name, or that
// differ, and if files of torch.save beside safetensors hold other floats of the
// same dtype and shape. FormatError as require_weights().
TensorFile read_weight_directory(const std::string& directory);

// Those of read_weight_directory() if the path is a directory; else those of the one file: a
// safetensors file if its name ends so, else one of torch.save. FormatError, IoError.
TensorFile read_weights(const std::string& path);

// The name of that file, or of the index; empty: there is none.
std::string weights_file(const std::string& directory);

// FormatError if read_weight_directory() finds no file; it says what lies there instead (an
// adapter, a .gguf file, ...).
void require_weights(const std::string& directory);

// Whether a file of weights, or a part of one, lies there.
bool holds_weights(const std::string& directory);

}  // namespace qlora::io

// Files of tensors as torch.save writes them since torch 1.6 (pytorch_model.bin, hqq's qmodel.pt):
// a zip archive of a pickle and of one entry for each storage. The pickle is read as data and
// nothing of it is run, so that a file cannot do more than be refused.
#pragma once

#include <string>

#include "io/tensor_file.h"

namespace qlora::io {

// The tensors of a dict, mapped; dicts within it are flattened, the names joined by ".". Tensors
// that lie in their storage in another order than row-major are copied. Numbers among them become
// tensors without dimensions (I64, F64, BOOL), lists, tuples and torch.Size of numbers vectors;
// other lists have the place of an element as its name. Texts, bytes, torch.dtype, torch.device and
// None are left out. FormatError naming the file, and the tensor or the byte of the pickle, if the
// archive, the pickle or a tensor is not what its parts say, if the pickle names anything else than
// torch's tensors and parameters or needs an opcode that such dicts do not, if the file is from
// before torch 1.6 or has numbers in big-endian order; IoError if it cannot be read.
TensorFile read_torch_file(const std::string& path);

}  // namespace qlora::io

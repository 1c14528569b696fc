// The names of Python's and torch's modules that may occur in a file of tensors.
#pragma once

#include <optional>
#include <string>

#include "io/dtype.h"

namespace qlora::io {

// Classes of storages, torch.dtype, the functions that make tensors and parameters of storages,
// and the plain values that stand beside tensors.
bool is_torch_global(const std::string& name);

// The type of the elements of a storage ("torch.HalfStorage"), and of a torch.dtype
// ("torch.float16"); nothing for other names, and for types that this program does not know.
std::optional<DType> storage_dtype(const std::string& name);
std::optional<DType> torch_dtype(const std::string& name);

}  // namespace qlora::io

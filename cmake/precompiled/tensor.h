// For files that pass tensors on and call no function of ATen but the tensors' own.
#include "json.h"

#include <ATen/core/Tensor.h>

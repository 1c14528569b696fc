// For files that compute with tensors. Without autograd's templates, which each file would
// instantiate again.
#include "standard.h"

#include <ATen/ATen.h>

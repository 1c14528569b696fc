// The tensors of one packed layer in a file, and what readers of such layers ask of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <set>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "quant/quantization_options.h"

namespace qlora::quant {

class LayerParts {
 public:
  // Borrows file and set; what is taken is added to the set.
  LayerParts(const io::TensorFile& file, std::string module, std::set<std::string>& read)
      : file_(file), module_(std::move(module)), read_(read) {}

  // The tensor MODULE.PART, or null.
  const io::TensorView* find(const std::string& part) const;
  // The same, noted as read where it is there.
  const io::TensorView* take_if_there(const std::string& part);
  // FormatError naming the layer if it is not there.
  const io::TensorView& take(const std::string& part);

 private:
  const io::TensorFile& file_;
  std::string module_;
  std::set<std::string>& read_;
};

// FormatError "FILE: tensor NAME must REQUIREMENT, found DTYPE [SHAPE]".
[[noreturn]] void reject_tensor(const io::TensorView& view, const std::string& requirement);
// FormatError unless the tensor is of this shape, and of one of these types.
void require_tensor(const io::TensorView& view, std::initializer_list<io::DType> dtypes,
                    const std::vector<int64_t>& shape);

// A copy in memory; the file's pages are dropped.
at::Tensor take_tensor(const io::TensorView& view);
// FormatError naming the first place at which `bad`, a boolean tensor of the view's shape, is true:
// "FILE: tensor NAME holds WHAT at [3, 7]; the file is damaged".
void refuse_values(const io::TensorView& view, const at::Tensor& bad, const std::string& what);
// A copy of float32, bfloat16 or float16, of which no value is NaN or infinite.
at::Tensor take_finite(const io::TensorView& view);

// ConfigError if the options ask for another quantization than the one that the file has, which
// `format` names.
void require_as_stored(const QuantizationOptions& options, const io::TensorView& view,
                       const std::string& format);

}  // namespace qlora::quant

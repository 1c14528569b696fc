#include "quant/prequantized/layer_parts.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "io/mapped_file.h"
#include "quant/tensor_file.h"

namespace qlora::quant {

const io::TensorView* LayerParts::find(const std::string& part) const {
  return file_.find(module_ + "." + part);
}

const io::TensorView* LayerParts::take_if_there(const std::string& part) {
  const io::TensorView* view = find(part);
  if (view) read_.insert(view->name);
  return view;
}

const io::TensorView& LayerParts::take(const std::string& part) {
  if (const io::TensorView* view = take_if_there(part)) return *view;
  const auto other = file_.index.lower_bound(module_ + ".");
  const std::string place =
      other == file_.index.end() ? "the model's file" : file_.tensors[other->second].file;
  fail<FormatError>("{}: the quantized layer {} must have a tensor {}.{}", place, module_, module_,
                    part);
}

void reject_tensor(const io::TensorView& view, const std::string& requirement) {
  fail<FormatError>("{}: tensor {} must {}, found {} [{}]", view.file, view.name, requirement,
                    io::dtype_name(view.dtype), fmt::join(view.shape, ", "));
}

void require_tensor(const io::TensorView& view, std::initializer_list<io::DType> dtypes,
                    const std::vector<int64_t>& shape) {
  if (view.shape == shape && std::ranges::find(dtypes, view.dtype) != dtypes.end()) return;
  std::vector<std::string> names;
  for (const io::DType dtype : dtypes) names.push_back(io::dtype_name(dtype));
  reject_tensor(view, fmt::format("be {} [{}]", fmt::join(names, " or "), fmt::join(shape, ", ")));
}

at::Tensor take_tensor(const io::TensorView& view) {
  at::Tensor tensor = tensor_of(view);
  io::drop_pages(view.bytes);
  return tensor;
}

void refuse_values(const io::TensorView& view, const at::Tensor& bad, const std::string& what) {
  if (!bad.any().item<bool>()) return;
  const at::Tensor first = at::nonzero(bad)[0];
  std::vector<int64_t> place;
  for (int64_t i = 0; i < first.numel(); ++i) place.push_back(first[i].item<int64_t>());
  fail<FormatError>("{}: tensor {} holds {} at [{}]; the file is damaged", view.file, view.name,
                    what, fmt::join(place, ", "));
}

at::Tensor take_finite(const io::TensorView& view) {
  at::Tensor tensor = take_tensor(view);
  refuse_values(view, at::isfinite(tensor).logical_not(), "a value that is NaN or infinite");
  return tensor;
}

void require_as_stored(const QuantizationOptions& options, const io::TensorView& view,
                       const std::string& format) {
  if (options.method == "as_stored") return;
  fail<ConfigError>(
      "quantization.method: {} holds weights in {}, and the recipe asks for {}; leave out the "
      "section quantization to take them as they are, or give the original 16-bit model",
      view.file, format, options.method);
}

}  // namespace qlora::quant

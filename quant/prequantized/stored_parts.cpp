#include "quant/prequantized/stored_parts.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "io/mapped_file.h"
#include "quant/tensor_file.h"

namespace qlora::quant {
namespace {

std::string type_and_shape(const std::string& type, const std::vector<int64_t>& shape) {
  return fmt::format("{} [{}]", type, fmt::join(shape, ", "));
}

}  // namespace

StoredParts::StoredParts(const io::TensorFile& file, std::string module, std::string format,
                         std::set<std::string>& read)
    : file_(file), module_(std::move(module)), format_(std::move(format)), read_(read) {
  const auto first = file_.index.lower_bound(module_ + ".");
  if (first != file_.index.end()) place_ = file_.tensors[first->second].file;
}

const io::TensorView* StoredParts::find(const std::string& part) const {
  return file_.find(module_ + "." + part);
}

bool StoredParts::has(const std::string& part, const std::vector<int64_t>& shape) const {
  const io::TensorView* view = find(part);
  return view && view->shape == shape;
}

int64_t StoredParts::size(const std::string& part, size_t dimension) const {
  const io::TensorView* view = find(part);
  return view && view->shape.size() == 2 ? view->shape[dimension] : 0;
}

const io::TensorView& StoredParts::part_of(const std::string& part,
                                           const std::vector<int64_t>& shape,
                                           std::initializer_list<io::DType> dtypes) {
  const io::TensorView* view = find(part);
  if (!view)
    fail<FormatError>("{}: the {} layer {} must have a tensor {}.{}", place_, format_, module_,
                      module_, part);
  if (view->shape != shape || std::ranges::find(dtypes, view->dtype) == dtypes.end()) {
    std::vector<std::string> types;
    for (const io::DType dtype : dtypes) types.push_back(io::dtype_name(dtype));
    reject(part, fmt::format("must be {}, found {}",
                             type_and_shape(fmt::format("{}", fmt::join(types, " or ")), shape),
                             type_and_shape(io::dtype_name(view->dtype), view->shape)));
  }
  read_.insert(view->name);
  return *view;
}

at::Tensor StoredParts::take(const std::string& part, io::DType dtype,
                             const std::vector<int64_t>& shape) {
  const io::TensorView& view = part_of(part, shape, {dtype});
  at::Tensor tensor = tensor_of(view);
  io::drop_pages(view.bytes);
  return tensor;
}

at::Tensor StoredParts::take_scales(const std::string& part, const std::vector<int64_t>& shape) {
  const io::TensorView& view =
      part_of(part, shape, {io::DType::kF16, io::DType::kBF16, io::DType::kF32});
  at::Tensor scales = tensor_of(view);
  if (!at::isfinite(scales).all().item<bool>())
    reject(part, "holds a scale that is NaN or infinite; the file is damaged");
  return scales;
}

void StoredParts::ignore(std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    if (const io::TensorView* view = find(part)) read_.insert(view->name);
}

void StoredParts::require_all_taken() const {
  const std::string prefix = module_ + ".";
  for (auto part = file_.index.lower_bound(prefix);
       part != file_.index.end() && part->first.starts_with(prefix); ++part) {
    const std::string name = part->first.substr(prefix.size());
    if (name != "bias" && !read_.contains(part->first))
      reject(name, fmt::format("belongs to no layer of {} that is known here", format_));
  }
}

void StoredParts::reject(const std::string& part, const std::string& sentence) const {
  const io::TensorView* view = find(part);
  fail<FormatError>("{}: tensor {}.{} {}", view ? view->file : place_, module_, part, sentence);
}

void require_as_stored(const QuantizationOptions& options, const std::string& stored,
                       const std::string& place) {
  if (options.method == "as_stored") return;
  fail<ConfigError>(
      "quantization.method: {} holds weights in {}, and the recipe asks for {}; leave out the "
      "section quantization to take them as they are, or give the original 16-bit model",
      place, stored, options.method);
}

void require_matrix(const WeightShape& shape, const StoredParts& parts) {
  if (!shape.stacked) return;
  fail<FormatError>(
      "{}: {} has the experts of a layer in one matrix of codes, which this version does not read; "
      "give the original 16-bit model",
      parts.place(), parts.module());
}

}  // namespace qlora::quant

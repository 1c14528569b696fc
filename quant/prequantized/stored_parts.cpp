#include "quant/prequantized/stored_parts.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>

#include "base/ascii_case.h"
#include "base/error.h"
#include "base/warn_once.h"
#include "io/json_text.h"
#include "io/mapped_file.h"
#include "quant/tensor_file.h"

namespace qlora::quant {
namespace {

std::string lower_text(const io::JsonNode& node) {
  return ascii_lower_case(io::json_text(node.value()));
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

const io::TensorView* StoredParts::take_if_there(const std::string& part) {
  const io::TensorView* view = find(part);
  if (view) read_.insert(view->name);
  return view;
}

const io::TensorView& StoredParts::take(const std::string& part) {
  if (const io::TensorView* view = take_if_there(part)) return *view;
  fail<FormatError>("{}: the {} layer {} must have a tensor {}.{}", place_, format_, module_,
                    module_, part);
}

at::Tensor StoredParts::take(const std::string& part, io::DType dtype,
                             const std::vector<int64_t>& shape) {
  const io::TensorView& view = take(part);
  require_tensor(view, {dtype}, shape);
  return take_tensor(view);
}

at::Tensor StoredParts::take_scales(const std::string& part, const std::vector<int64_t>& shape) {
  const io::TensorView& view = take(part);
  require_tensor(view, {io::DType::kF16, io::DType::kBF16, io::DType::kF32}, shape);
  at::Tensor scales = take_tensor(view);
  refuse_values(view, at::isfinite(scales).logical_not(), "a scale that is NaN or infinite");
  return scales;
}

void StoredParts::ignore(std::initializer_list<const char*> parts) {
  for (const char* part : parts) take_if_there(part);
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

void warn_of_quantized_activations(const io::JsonNode& place) {
  log::warning_once(
      "{}: other programs quantize activations too; here the weights are used as they are, with "
      "activations as train.compute_dtype has them",
      place.place());
}

void warn_of_tensors(const std::string& config, const char* topic, const std::string& module,
                     const std::string& said, const std::string& found) {
  log::warning_once_of(
      fmt::format("{}: {}", config, topic),
      "{} has {} for {}, whose tensors have {}; the tensors are used, in other layers as well",
      config, said, module, found);
}

std::optional<io::JsonNode> first_of(const io::JsonNode& config,
                                     std::initializer_list<const char*> keys) {
  std::optional<io::JsonNode> first;
  for (const char* key : keys) {
    const auto found = config.find(key);
    if (found && first && lower_text(*found) != lower_text(*first))
      log::warning_once("{} is {} and {} is {}; the former is used", first->place(),
                        io::json_text(first->value()), found->place(),
                        io::json_text(found->value()));
    if (!first) first = found;
  }
  return first;
}

bool is_likely_size(int64_t count, int64_t size) {
  return size >= count || count % size == 0 || std::has_single_bit(static_cast<uint64_t>(size));
}

void require_matrix(const WeightShape& shape, const StoredParts& parts) {
  if (!shape.stacked) return;
  fail<FormatError>(
      "{}: {} has the experts of a layer in one matrix of codes, which this version does not read; "
      "give the original 16-bit model",
      parts.place(), parts.module());
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

}  // namespace qlora::quant

#include "quant/prequantized/hqq.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "base/error.h"
#include "io/known_keys.h"
#include "quant/formats/grouped_weight.h"
#include "quant/formats/hqq_weight.h"
#include "quant/hqq/hqq_kernels.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/stored_parts.h"
#include "quant/tensor_file.h"

namespace qlora::quant {
namespace {

constexpr std::array<const char*, 19> kParts = {"W_q",
                                                "scale",
                                                "zero",
                                                "nbits",
                                                "group_size",
                                                "shape",
                                                "axis",
                                                "packing",
                                                "unpack_view_dtype",
                                                "view_as_float",
                                                "quant_scale",
                                                "quant_zero",
                                                "compute_dtype",
                                                "offload_meta",
                                                "encoded_state_dict",
                                                "stores_quant_config",
                                                "channel_wise",
                                                "optimize",
                                                "round_zero"};

constexpr std::string_view kRead[] = {"quant_config", "skip_modules"};
// Of a layer. How codes were found, and how they lie, the tensors say; scales that are quantized
// themselves are refused there.
constexpr std::string_view kReadOfLayer[] = {"weight_quant_params", "scale_quant_params",
                                             "zero_quant_params", "offload_meta"};
constexpr std::string_view kReadOfWeights[] = {
    "nbits", "group_size", "axis", "optimize", "round_zero", "channel_wise", "view_as_float"};

// The widths that HQQ has, as they are written, packed and called.
struct Width {
  double nbits;
  int field;  // bits of a packed field
  const char* packing;
  const char* name;
};
constexpr std::array<Width, 8> kWidths = {{{8, 8, "8bit_u8", "8"},
                                           {6, 8, "8bit_u8", "6"},
                                           {5, 8, "8bit_u8", "5"},
                                           {4, 4, "4bit_u8", "4"},
                                           {3, 3, "3bit_32", "3"},
                                           {2, 2, "2bit_u8", "2"},
                                           {1.58, 2, "2bit_u8", "1.58"},
                                           {1, 1, "1bit_u8", "1"}}};
constexpr const char* kWidthNames = "1, 1.58, 2, 3, 4, 5, 6 or 8";

// Null for other numbers; 1.58 is stored as float32.
const Width* width_of(double nbits) {
  for (const Width& width : kWidths)
    if (std::abs(width.nbits - nbits) < 1e-6) return &width;
  return nullptr;
}

std::string format_name(const Width& width) { return fmt::format("hqq, {} bit", width.name); }

// Of a layer in config.json.
struct LayerConfig {
  const Width* width;
  int64_t group_size;  // 0: the whole row or column
  int64_t axis;

  // The group's size in a matrix.
  int64_t size_in(const WeightShape& shape) const {
    return group_size > 0 ? group_size : axis == 1 ? shape.in : shape.out;
  }
};

LayerConfig layer_config(const io::JsonNode& node) {
  io::warn_of_other_keys(node, {kReadOfLayer});
  const io::JsonNode weights = node.at("weight_quant_params");
  io::warn_of_other_keys(weights, {kReadOfWeights});
  const io::JsonNode nbits = weights.at("nbits");
  const Width* width = width_of(nbits.as_number());
  if (!width) nbits.reject(kWidthNames);
  const auto size = weights.find("group_size");
  const auto axis = weights.find("axis");
  return {width, size ? size->as_integer(1, int64_t{1} << 31) : 0,
          axis ? axis->as_integer(0, 1) : 0};
}

// One setting for all layers, under the empty name, or one for each tag ("self_attn.q_proj").
std::map<std::string, LayerConfig> layer_configs(const io::JsonNode& config) {
  std::map<std::string, LayerConfig> layers;
  const auto settings = config.find("quant_config");
  if (!settings) return layers;
  if (settings->find("weight_quant_params")) {
    layers.emplace("", layer_config(*settings));
    return layers;
  }
  for (const auto& [tag, of_tag] : settings->value().items())
    if (!of_tag.is_null()) layers.emplace(tag, layer_config(settings->at(tag)));
  return layers;
}

bool is_float(io::DType dtype) {
  return dtype == io::DType::kF32 || dtype == io::DType::kBF16 || dtype == io::DType::kF16;
}

// A number that is stored as a tensor of one element.
double number_in(const io::TensorView& view) {
  constexpr std::array kWhole = {io::DType::kBool, io::DType::kU8,  io::DType::kI8,
                                 io::DType::kI16,  io::DType::kI32, io::DType::kI64};
  const bool is_number = is_float(view.dtype) || view.dtype == io::DType::kF64 ||
                         std::ranges::find(kWhole, view.dtype) != kWhole.end();
  if (view.num_elements() != 1 || !is_number) reject_tensor(view, "be one number");
  return tensor_of(view).to(at::kDouble).item<double>();
}

int64_t integer_in(const io::TensorView& view) {
  const double number = number_in(view);
  if (!(std::abs(number) <= 0x1p53) || number != std::floor(number))
    reject_tensor(view, "be one whole number");
  return static_cast<int64_t>(number);
}

void refuse_quantized_scales(const StoredParts& parts) {
  const std::string why =
      ": scales that are quantized themselves, which HQQ has given up, are not read";
  for (const char* part : {"quant_scale", "quant_zero"})
    if (const io::TensorView* view = parts.find(part); view && number_in(*view) != 0)
      reject_tensor(*view, "be false" + why);
  for (const char* part : {"scale_q", "zero_q"})
    if (const io::TensorView* view = parts.find(part)) reject_tensor(*view, "not be there" + why);
}

// The settings of one layer, read from its tensors.
class Layer {
 public:
  Layer(StoredParts& parts, const WeightShape& shape)
      : codes_(parts.take("W_q")),
        scale_(parts.take("scale")),
        zero_(parts.take("zero")),
        shape_(shape) {
    const io::TensorView& nbits = parts.take("nbits");
    width_ = width_of(number_in(nbits));
    if (!width_) reject_tensor(nbits, fmt::format("be {}", kWidthNames));
    require_shape(parts);
    read_axis(parts);
    read_group_size(parts);
    if (const io::TensorView* packing = parts.take_if_there("packing")) require_packing(*packing);
    for (const char* part : kParts) parts.take_if_there(part);
  }

  const Width& width() const { return *width_; }

  // On the CPU.
  HqqTensor read() const {
    HqqTensor weight;
    weight.bits = width_->field;
    weight.axis = axis_;
    weight.out = shape_.out;
    weight.in = shape_.in;
    weight.group_size = group_size_;
    weight.packed = read_codes(weight);
    weight.scales = read_one_a_group(scale_, weight);
    weight.zeros = read_one_a_group(zero_, weight);
    if (weight.scales.scalar_type() != weight.zeros.scalar_type()) {
      weight.scales = weight.scales.to(at::kFloat);
      weight.zeros = weight.zeros.to(at::kFloat);
    }
    return weight;
  }

 private:
  void require_shape(StoredParts& parts) const {
    const io::TensorView* stored = parts.take_if_there("shape");
    if (!stored) return;
    require_tensor(*stored, {io::DType::kI64, io::DType::kI32}, {2});
    const at::Tensor sizes = tensor_of(*stored).to(at::kLong);
    const int64_t out = sizes[0].item<int64_t>(), in = sizes[1].item<int64_t>();
    if (out != shape_.out || in != shape_.in)
      fail<FormatError>("{}: tensor {} must hold the shape [{}, {}], found [{}, {}]", stored->file,
                        stored->name, shape_.out, shape_.in, out, in);
  }

  // Scales lie as a column for groups that are rows, and as a row for those that are columns.
  void read_axis(StoredParts& parts) {
    const io::TensorView* stored = parts.take_if_there("axis");
    const bool column = scale_.shape.size() == 2 && scale_.shape[1] == 1;
    const int64_t axis = stored ? integer_in(*stored) : column ? 1 : 0;
    if (axis != 0 && axis != 1) reject_tensor(*stored, "be 0 or 1");
    axis_ = static_cast<int>(axis);
  }

  void read_group_size(StoredParts& parts) {
    const io::TensorView* stored = parts.take_if_there("group_size");
    const int64_t elements = shape_.num_elements(), groups = scale_.num_elements();
    if (!stored && (groups == 0 || elements % groups != 0))
      reject_tensor(scale_, fmt::format("be one for each group of {} weights", elements));
    group_size_ = stored ? integer_in(*stored) : elements / groups;
    if (group_size_ < 1 || elements % group_size_ != 0)
      fail<FormatError>("{}: tensor {} must divide {} weights into groups, found groups of {}",
                        stored->file, stored->name, elements, group_size_);
  }

  void require_packing(const io::TensorView& stored) const {
    const std::string text(reinterpret_cast<const char*>(stored.bytes.data()), stored.bytes.size());
    if (text != width_->packing)
      fail<FormatError>("{}: tensor {} must spell {} for {} bits, found '{}'", stored.file,
                        stored.name, width_->packing, width_->name, text);
  }

  // The packed bytes, whatever type they are viewed as (view_as_float).
  at::Tensor read_codes(const HqqTensor& weight) const {
    const int parts = hqq_parts(weight.bits);
    if (weight.bits != 3 && weight.rows() % parts != 0)
      fail<FormatError>("{}: tensor {} cannot hold {} rows of the grouped matrix in {} equal parts",
                        codes_.file, codes_.name, weight.rows(), parts);
    const at::ScalarType type = weight.bits == 3 ? at::kInt : at::kByte;
    const int64_t bytes =
        weight.packed_rows() * weight.columns() * static_cast<int64_t>(c10::elementSize(type));
    const bool viewable = codes_.dtype == (weight.bits == 3 ? io::DType::kI32 : io::DType::kU8) ||
                          is_float(codes_.dtype);
    if (!viewable || static_cast<int64_t>(codes_.bytes.size()) != bytes)
      reject_tensor(codes_,
                    fmt::format("hold {} codes of {} bits in groups of {} along axis {} in "
                                "{} bytes",
                                shape_.num_elements(), width_->name, group_size_, axis_, bytes));
    const at::Tensor packed =
        take_tensor(codes_).flatten().view(type).view({weight.packed_rows(), weight.columns()});
    if (weight.bits == 8) refuse_codes_above(packed, (1 << static_cast<int>(width_->nbits)) - 1);
    return packed;
  }

  void refuse_codes_above(const at::Tensor& packed, int largest) const {
    if (packed.gt(largest).any().item<bool>())
      fail<FormatError>("{}: tensor {} holds a code above {}; the file is damaged", codes_.file,
                        codes_.name, largest);
  }

  static at::Tensor read_one_a_group(const io::TensorView& view, const HqqTensor& weight) {
    if (!is_float(view.dtype) || view.num_elements() != weight.groups())
      reject_tensor(view, fmt::format("be F32, BF16 or F16 with a number for each of {} groups",
                                      weight.groups()));
    return take_finite(view).flatten();
  }

  const io::TensorView &codes_, &scale_, &zero_;
  WeightShape shape_;
  const Width* width_ = nullptr;
  int axis_ = 0;
  int64_t group_size_ = 0;
};

// Groups that are parts of rows.
bool is_grouped(int64_t axis, int64_t group_size, int64_t in) {
  return axis == 1 && in % group_size == 0;
}

GroupedTensor grouped(const HqqTensor& weight) {
  GroupedTensor tensor;
  tensor.bits = weight.bits;
  tensor.in = weight.in;
  tensor.group_size = weight.group_size;
  tensor.codes = pack_codes(hqq_codes(weight), weight.bits);
  tensor.scales = weight.scales.view({weight.out, -1});
  tensor.zeros = weight.zeros.view({weight.out, -1});
  return tensor;
}

class HqqFormat final : public StoredFormat {
 public:
  explicit HqqFormat(const io::JsonNode& config)
      : layers_(layer_configs(config)), place_(config.place()) {
    check_config_keys(config, kRead);
  }

  std::string name() const override { return "HQQ"; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + ".W_q") != nullptr;
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, name(), read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    refuse_quantized_scales(parts);
    const Layer layer(parts, shape);
    HqqTensor weight = layer.read();
    warn_of_other_settings(module, shape, layer.width(), weight);
    if (!is_grouped(weight.axis, weight.group_size, weight.in)) {
      for (at::Tensor* tensor : {&weight.packed, &weight.scales, &weight.zeros})
        *tensor = tensor->to(device);
      return std::make_unique<HqqWeight>(std::move(weight), format_name(layer.width()));
    }
    GroupedTensor tensor = grouped(weight);
    for (at::Tensor* part : {&tensor.codes, &tensor.scales, &tensor.zeros})
      *part = part->to(device);
    return std::make_unique<GroupedWeight>(std::move(tensor), format_name(layer.width()));
  }

  FrozenSize size(const std::string& module, const WeightShape& shape) const override {
    const LayerConfig layer = config_of(module).value_or(LayerConfig{width_of(4), 64, 1});
    HqqTensor weight;
    weight.bits = layer.width->field;
    weight.axis = static_cast<int>(layer.axis);
    weight.out = shape.out;
    weight.in = shape.in;
    weight.group_size = layer.size_in(shape);
    const int64_t codes =
        is_grouped(weight.axis, weight.group_size, shape.in)
            ? shape.out * grouped_row_bytes(weight.bits, shape.in)
            : weight.packed_rows() * weight.columns() * (weight.bits == 3 ? 4 : 1);
    return {format_name(*layer.width),
            codes + 2 * 2 * weight.groups(),
            {WeightKind::kDecoded, at::kFloat}};
  }

 private:
  // That of the tag with which the module's name ends.
  std::optional<LayerConfig> config_of(const std::string& module) const {
    for (const auto& [tag, layer] : layers_)
      if (tag.empty() || module == tag || module.ends_with("." + tag)) return layer;
    return std::nullopt;
  }

  void warn_of_other_settings(const std::string& module, const WeightShape& shape,
                              const Width& width, const HqqTensor& weight) const {
    const auto said = config_of(module);
    if (!said) return;
    const auto text = [](const Width& of, int64_t group_size, int64_t axis) {
      return fmt::format("{} bits in groups of {} along axis {}", of.name, group_size, axis);
    };
    const std::string in_config = text(*said->width, said->size_in(shape), said->axis);
    const std::string found = text(width, weight.group_size, weight.axis);
    if (in_config != found) warn_of_tensors(place_, "settings", module, in_config, found);
  }

  std::map<std::string, LayerConfig> layers_;
  std::string place_;
};

}  // namespace

std::unique_ptr<StoredFormat> hqq_format(const io::JsonNode& config) {
  return std::make_unique<HqqFormat>(config);
}

}  // namespace qlora::quant

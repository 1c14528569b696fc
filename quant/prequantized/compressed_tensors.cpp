#include "quant/prequantized/compressed_tensors.h"

#include <ATen/ATen.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "base/error.h"
#include "quant/prequantized/code_words.h"
#include "quant/prequantized/compressed_groups.h"
#include "quant/prequantized/fp8.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr const char* kFormat = "compressed-tensors";
constexpr const char* kParts[] = {"weight_packed",     "weight_scale", "weight_shape",
                                  "weight_zero_point", "weight_g_idx", "input_scale",
                                  "input_zero_point",  "output_scale", "output_zero_point"};

int64_t whole_code_words(int64_t codes, int bits) { return (codes + 32 / bits - 1) / (32 / bits); }

void require_shape(StoredParts& parts, const WeightShape& shape) {
  const io::TensorView* view = parts.find("weight_shape");
  const bool is_int = view && view->dtype == io::DType::kI32;
  const at::Tensor stored =
      parts.take("weight_shape", is_int ? io::DType::kI32 : io::DType::kI64, {2}).to(at::kLong);
  const auto* sizes = stored.const_data_ptr<int64_t>();
  if (sizes[0] != shape.out || sizes[1] != shape.in)
    parts.reject("weight_shape", fmt::format("must hold [{}, {}], found [{}, {}]", shape.out,
                                             shape.in, sizes[0], sizes[1]));
}

// The shape of a part that has a number for each group of each row, or one for all rows.
std::vector<int64_t> shape_of_numbers(const StoredParts& parts, const std::string& part,
                                      const WeightShape& shape, int64_t groups) {
  if (groups == 1)
    for (const std::vector<int64_t>& one :
         std::initializer_list<std::vector<int64_t>>{{}, {1}, {1, 1}})
      if (parts.has(part, one)) return one;
  return {shape.out, groups};
}

// [out, groups]
at::Tensor take_row_scales(StoredParts& parts, const WeightShape& shape, int64_t groups) {
  return parts.take_scales("weight_scale", shape_of_numbers(parts, "weight_scale", shape, groups))
      .expand({shape.out, groups})
      .contiguous();
}

// Signed zeros, int8, to those of codes that begin at 0, [out, groups].
at::Tensor take_signed_zeros(StoredParts& parts, const WeightShape& shape, int64_t groups,
                             int bits) {
  const at::Tensor zeros = parts.take("weight_zero_point", io::DType::kI8,
                                      shape_of_numbers(parts, "weight_zero_point", shape, groups));
  const at::Tensor shifted = zeros.to(at::kInt).add(1 << (bits - 1));
  if (((shifted < 0) | (shifted >= (1 << bits))).any().item<bool>())
    parts.reject("weight_zero_point", fmt::format("holds a zero beyond {} bits", bits));
  return shifted.to(at::kByte).expand({shape.out, groups}).contiguous();
}

// Words of codes that are whole in their word, or streams of bits, to codes [rows, count].
at::Tensor unpack(const at::Tensor& words, int bits, int64_t count, bool whole_codes) {
  return whole_codes ? unpack_whole_codes(words, bits, count) : unpack_stream(words, bits, count);
}

int64_t packed_words(int64_t count, int bits, bool whole_codes) {
  return whole_codes ? whole_code_words(count, bits) : num_words(count, bits);
}

at::Tensor take_packed_zeros(StoredParts& parts, const WeightShape& shape, int64_t groups, int bits,
                             bool whole_codes) {
  const io::TensorView* view = parts.find("weight_zero_point");
  if (view && view->dtype == io::DType::kI8) return take_signed_zeros(parts, shape, groups, bits);
  const at::Tensor words = parts.take("weight_zero_point", io::DType::kI32,
                                      {packed_words(shape.out, bits, whole_codes), groups});
  return unpack(transposed_words(words), bits, shape.out, whole_codes).t().contiguous();
}

// Undefined where columns lie in groups of group_size in their order, which old releases may say
// by -1 everywhere.
at::Tensor take_groups(StoredParts& parts, const WeightShape& shape, int64_t groups,
                       int64_t group_size) {
  if (!parts.find("weight_g_idx")) return {};
  at::Tensor g_idx = parts.take("weight_g_idx", io::DType::kI32, {shape.in});
  if ((g_idx == -1).all().item<bool>()) return {};
  const auto* group_of = g_idx.const_data_ptr<int32_t>();
  bool ordered = true;
  for (int64_t i = 0; i < shape.in; ++i) {
    if (group_of[i] < 0 || group_of[i] >= groups)
      parts.reject("weight_g_idx", fmt::format("must hold groups from 0 to {}, found {} at {}",
                                               groups - 1, group_of[i], i));
    ordered = ordered && group_of[i] == i / group_size;
  }
  return ordered ? at::Tensor() : g_idx;
}

class CompressedTensors final : public StoredFormat {
 public:
  explicit CompressedTensors(const io::JsonNode& config)
      : place_(config.place()),
        groups_(config),
        fp8_(groups_.any_float() ? fp8_format(config) : nullptr) {}

  std::string name() const override { return kFormat; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + ".weight_packed") || is_int8(file, module) ||
           (fp8_ && fp8_->holds(file, module));
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    const bool packed = file.find(module + ".weight_packed") != nullptr;
    if (!packed && !is_int8(file, module) && fp8_)
      return fp8_->read(file, module, shape, options, device, read);
    StoredParts parts(file, module, kFormat, read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    const auto weights = groups_.of(module);
    if (weights && !weights->ordered && num_groups(shape.in, weights->group_size) > 1 &&
        !parts.find("weight_g_idx"))
      reject_lost_order(parts, "weight_scale", "weight_g_idx", place_ + " has actorder 'group'");
    if (!weights || weights->is_float)
      parts.reject(packed ? "weight_packed" : "weight",
                   "holds integers, but no group of config.json's config_groups says how");
    GroupedTensor weight =
        packed ? decode_packed(parts, shape, *weights) : decode_int8(parts, shape, *weights);
    if (!parts.find("weight_g_idx"))
      require_likely_groups(parts, "weight_scale", shape.in, weights->group_size, place_);
    parts.ignore({"input_scale", "input_zero_point", "output_scale", "output_zero_point"});
    parts.require_all_taken();
    warn_of_tensors_beside(parts, *weights, weight);
    return grouped_layer(std::move(weight), kFormat, module, device);
  }

  FrozenSize size(const std::string& module, const WeightShape& shape) const override {
    const CompressedWeights weights = groups_.of(module).value_or(CompressedWeights{});
    if (weights.is_float) return fp8_->size(module, shape);
    return grouped_size(shape,
                        {.bits = weights.bits,
                         .group_size = weights.group_size,
                         .zeros = !weights.symmetric,
                         .group_of = !weights.ordered},
                        kFormat);
  }

 private:
  // Warns of zeros and of an order of columns that the config does not have.
  void warn_of_tensors_beside(const StoredParts& parts, const CompressedWeights& said,
                              const GroupedTensor& weight) const {
    if (said.symmetric && weight.zeros.defined() &&
        weight.zeros.ne(static_cast<int>(weight.zero)).any().item<bool>())
      warn_of_tensors(place_, "zeros", parts.module(), "symmetric weights", "zeros of their own");
    if (said.ordered && weight.group_of.defined())
      warn_of_tensors(place_, "actorder", parts.module(), "no actorder 'group'",
                      "a weight_g_idx with groups of columns in an order of their own");
  }

  static bool is_int8(const io::TensorFile& file, const std::string& module) {
    const io::TensorView* weight = file.find(module + ".weight");
    return weight && weight->dtype == io::DType::kI8;
  }

  // What packed and int8 weights have in common: sizes and scales.
  static GroupedTensor begin(StoredParts& parts, const WeightShape& shape,
                             const CompressedWeights& said) {
    GroupedTensor weight;
    weight.bits = kept_bits(said.bits);
    weight.in = shape.in;
    weight.group_size = group_columns(shape.in, said.group_size);
    weight.zero = static_cast<float>(1 << (said.bits - 1));
    const int64_t groups = num_groups(shape.in, said.group_size);
    weight.scales = take_row_scales(parts, shape, groups);
    weight.group_of = take_groups(parts, shape, groups, weight.group_size);
    return weight;
  }

  static bool has_zeros(const StoredParts& parts, const CompressedWeights& said) {
    return !said.symmetric || parts.find("weight_zero_point");
  }

  static GroupedTensor decode_packed(StoredParts& parts, const WeightShape& shape,
                                     const CompressedWeights& said) {
    GroupedTensor weight = begin(parts, shape, said);
    require_shape(parts, shape);
    const int bits = said.bits;
    const int64_t whole = whole_code_words(shape.in, bits);
    const bool whole_codes =
        whole != num_words(shape.in, bits) && parts.has("weight_packed", {shape.out, whole});
    const at::Tensor words = parts.take("weight_packed", io::DType::kI32,
                                        {shape.out, packed_words(shape.in, bits, whole_codes)});
    weight.codes = whole_codes ? pack_codes(unpack(words, bits, shape.in, true), weight.bits)
                               : rows_of_stream(words, bits, shape.in);
    if (has_zeros(parts, said))
      weight.zeros = take_packed_zeros(parts, shape, weight.groups(), bits, whole_codes);
    return weight;
  }

  static GroupedTensor decode_int8(StoredParts& parts, const WeightShape& shape,
                                   CompressedWeights said) {
    said.bits = 8;  // a code's byte, however few of its bits are used
    GroupedTensor weight = begin(parts, shape, said);
    weight.codes = rows_of_int8(parts.take("weight", io::DType::kI8, {shape.out, shape.in}));
    if (has_zeros(parts, said))
      weight.zeros = take_signed_zeros(parts, shape, weight.groups(), said.bits);
    return weight;
  }

  std::string place_;
  CompressedGroups groups_;
  std::unique_ptr<StoredFormat> fp8_;  // of layers in floats
};

}  // namespace

std::unique_ptr<StoredFormat> compressed_tensors_format(const io::JsonNode& config) {
  return std::make_unique<CompressedTensors>(config);
}

}  // namespace qlora::quant

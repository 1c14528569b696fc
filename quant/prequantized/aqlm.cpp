#include "quant/prequantized/aqlm.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <array>
#include <bit>

#include "base/error.h"
#include "quant/formats/aqlm_weight.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr std::array<const char*, 3> kParts = {"codes", "codebooks", "scales"};

constexpr std::string_view kRead[] = {"num_codebooks", "nbits_per_codebook", "in_group_size",
                                      "out_group_size"};
constexpr std::string_view kHarmless[] = {"linear_weights_not_to_quantize"};  // the tensors say it

struct AqlmConfig {
  int64_t num_codebooks, bits, in_group, out_group;

  // The shape of a layer's codebooks.
  std::vector<int64_t> sizes() const {
    return {num_codebooks, int64_t{1} << bits, out_group, in_group};
  }
};

AqlmConfig read_config(const io::JsonNode& config) {
  check_config_keys(config, kRead, kHarmless);
  const auto integer = [&](const char* key, int64_t otherwise, int64_t most) {
    const auto stored = config.find(key);
    return stored ? stored->as_integer(1, most) : otherwise;
  };
  return {integer("num_codebooks", 1, 64), integer("nbits_per_codebook", 16, 16),
          integer("in_group_size", 8, 1 << 16), integer("out_group_size", 1, 1 << 16)};
}

bool is_float(io::DType dtype) {
  return dtype == io::DType::kF16 || dtype == io::DType::kBF16 || dtype == io::DType::kF32;
}

// Codebooks [C, 2^b, out_group, in_group] whose groups divide the matrix.
void require_codebooks(const io::TensorView& view, const WeightShape& shape) {
  const std::vector<int64_t>& sizes = view.shape;
  const bool fits = is_float(view.dtype) && sizes.size() == 4 && view.num_elements() > 0 &&
                    std::has_single_bit(static_cast<uint64_t>(sizes[1])) &&
                    shape.out % sizes[2] == 0 && shape.in % sizes[3] == 0;
  if (!fits)
    reject_tensor(view, fmt::format("be F16, BF16 or F32 [codebooks, entries, rows, columns] with "
                                    "a power of two of entries, whose rows and columns divide "
                                    "[{}, {}]",
                                    shape.out, shape.in));
}

// [out / out_group, in / in_group, C]. A directory that transformers saved after a forward pass on
// the CPU has the first two the other way round; of a square matrix no shape tells, and none is
// assumed to be.
at::Tensor read_codes(const io::TensorView& view, const std::vector<int64_t>& shape,
                      int64_t entries) {
  const std::vector<int64_t> transposed{shape[1], shape[0], shape[2]};
  const bool turned = view.shape == transposed && transposed != shape;
  require_tensor(view, {io::DType::kI8, io::DType::kI16}, turned ? transposed : shape);
  if (entries > (view.dtype == io::DType::kI8 ? 1 << 8 : 1 << 16))
    reject_tensor(view, fmt::format("hold codes for {} entries of a codebook", entries));
  const at::Tensor codes = take_tensor(view);
  return turned ? codes.transpose(0, 1).contiguous() : codes;
}

class AqlmFormat final : public StoredFormat {
 public:
  explicit AqlmFormat(const io::JsonNode& config)
      : config_(read_config(config)), place_(config.place()) {}

  std::string name() const override { return "AQLM"; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + ".codes") != nullptr || file.find(module + ".codebooks") != nullptr;
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, name(), read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    const io::TensorView &codes = parts.take("codes"), &codebooks = parts.take("codebooks"),
                         &scales = parts.take("scales");
    require_codebooks(codebooks, shape);
    const int64_t rows = shape.out / codebooks.shape[2], columns = shape.in / codebooks.shape[3];
    if (!is_float(scales.dtype) || scales.num_elements() != rows)
      reject_tensor(scales, fmt::format("be F16, BF16 or F32 [{}, 1, 1, 1]", rows));
    if (codebooks.shape != config_.sizes())
      warn_of_tensors(place_, "codebooks", module,
                      fmt::format("codebooks [{}]", fmt::join(config_.sizes(), ", ")),
                      fmt::format("[{}]", fmt::join(codebooks.shape, ", ")));
    AqlmTensor weight;
    weight.codes = read_codes(codes, {rows, columns, codebooks.shape[0]}, codebooks.shape[1]);
    weight.codebooks = take_finite(codebooks);
    weight.scales = take_finite(scales).flatten();
    for (at::Tensor* tensor : {&weight.codes, &weight.codebooks, &weight.scales})
      *tensor = tensor->to(device);
    return std::make_unique<AqlmWeight>(std::move(weight));
  }

  FrozenSize size(const std::string&, const WeightShape& shape) const override {
    const AqlmConfig& c = config_;
    const int64_t rows = shape.out / c.out_group, columns = shape.in / c.in_group;
    const int64_t code_bytes = c.bits <= 8 ? 1 : 2;
    const int64_t entries = c.num_codebooks << c.bits;
    return {aqlm_format_name(c.num_codebooks, c.bits),
            rows * columns * c.num_codebooks * code_bytes +
                2 * (entries * c.out_group * c.in_group + rows),
            {WeightKind::kDecoded, at::kFloat}};
  }

 private:
  AqlmConfig config_;
  std::string place_;
};

}  // namespace

std::unique_ptr<StoredFormat> aqlm_format(const io::JsonNode& config) {
  return std::make_unique<AqlmFormat>(config);
}

}  // namespace qlora::quant

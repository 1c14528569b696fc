#include "quant/prequantized/fp8.h"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <array>
#include <optional>
#include <span>

#include "base/error.h"
#include "quant/formats/fp8_weight.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

// Scales under the names that they go by, and what belongs to activations, which training does not
// quantize.
constexpr std::array<const char*, 9> kParts = {
    "weight_scale_inv", "weight_scale",        "scale",
    "qscale_weight",    "activation_scale",    "input_scale",
    "input_scale_ub",   "activation_scale_ub", "output_scale"};
constexpr std::span<const char* const> kScaleNames(kParts.data(), 4);
constexpr std::span<const char* const> kIgnoredNames(kParts.data() + 4, kParts.size() - 4);

constexpr std::string_view kRead[] = {"fmt", "scale_fmt", "expert_dtype", "activation_scheme",
                                      "weight_block_size"};
// Of activations, which training does not quantize, and of fbgemm's kernel.
constexpr std::string_view kHarmless[] = {"activation_scale_ub", "is_checkpoint_fp8_serialized",
                                          "packed_modules_mapping"};

struct BlockSize {
  int64_t rows, columns;
};

constexpr int64_t kMostInBlock = int64_t{1} << 31;

int64_t blocks_of(int64_t count, int64_t block) { return (count + block - 1) / block; }

std::optional<BlockSize> block_size_at(const io::JsonNode& config, const char* key) {
  const auto stored = config.find(key);
  if (!stored) return std::nullopt;
  const std::vector<io::JsonNode> sizes = stored->elements();
  if (sizes.size() != 2) stored->reject("two sizes, [rows, columns]");
  return BlockSize{sizes[0].as_integer(1, kMostInBlock), sizes[1].as_integer(1, kMostInBlock)};
}

// What the configuration says of the blocks of scales.
struct Fp8Config {
  std::optional<BlockSize> block;
  std::string strategy = "tensor";  // where there are no blocks: one scale a tensor or a channel
  int64_t scale_bytes = 4;
  std::string place;  // of the one key that says it of all layers; empty if there is none

  BlockSize block_in(const WeightShape& shape) const {
    if (block) return *block;
    return {strategy == "channel" ? 1 : shape.out, shape.in};
  }
};

void require_e4m3(const io::JsonNode& config) {
  const auto format = config.find("fmt");
  if (format && !format->as_string().starts_with("e4m3") &&
      !format->as_string().starts_with("float8_e4m3"))
    format->reject("e4m3, the only type of 8 bits that weights are read in");
}

// Whether scales are powers of two, a byte each.
bool has_exponents(const io::JsonNode& config) {
  const auto format = config.find("scale_fmt");
  if (!format || format->as_string() == "float") return false;
  if (format->as_string() != "ue8m0") format->reject("float or ue8m0");
  return true;
}

void require_fp8_experts(const io::JsonNode& config) {
  const auto experts = config.find("expert_dtype");
  if (experts && experts->as_string() != "fp8")
    experts->reject("fp8, the only type that experts are read in");
}

// Groups of layers of compressed-tensors; others of its formats pass through here, too.
Fp8Config read_groups(const io::JsonNode& groups) {
  Fp8Config read;
  read.scale_bytes = 2;
  for (const auto& [name, group] : groups.value().items()) {
    const io::JsonNode node = groups.at(name);
    const auto weights = node.find("weights");
    if (!weights || weights->string_or("type", "int") != "float") continue;
    if (const auto bits = weights->find("num_bits"); bits && bits->as_integer(1, 64) != 8) continue;
    read.strategy = weights->string_or("strategy", "tensor");
    read.block = block_size_at(*weights, "block_structure");
    if (const auto size = weights->find("group_size"); size && read.strategy == "group")
      read.block = BlockSize{1, size->as_integer(1, kMostInBlock)};
    if (groups.value().size() == 1) read.place = weights->place();
  }
  return read;
}

Fp8Config read_config(const io::JsonNode& config) {
  const std::string method = config.string_or("quant_method", "fp8");
  if (const auto groups = config.find("config_groups")) return read_groups(*groups);
  check_config_keys(config, kRead, kHarmless);
  Fp8Config read;
  if (method == "fbgemm_fp8") {
    read.strategy = "channel";
  } else if (method == "mxfp8") {
    read.block = BlockSize{1, 32};
    read.scale_bytes = 1;
  } else {
    require_e4m3(config);
    require_fp8_experts(config);
    if (const auto scheme = config.find("activation_scheme"))
      warn_of_quantized_activations(*scheme);
    read.block = block_size_at(config, "weight_block_size");
    // Null is one scale for all; without the key nothing is said.
    if (config.value().contains("weight_block_size"))
      read.place = config.place() + ".weight_block_size";
    if (has_exponents(config)) read.scale_bytes = 1;
  }
  return read;
}

bool is_fp8(io::DType dtype) {
  return dtype == io::DType::kF8_E4M3 || dtype == io::DType::kF8_E5M2;
}

class Fp8Format final : public StoredFormat {
 public:
  explicit Fp8Format(const io::JsonNode& config) : config_(read_config(config)) {}

  std::string name() const override { return "FP8"; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    const io::TensorView* weight = file.find(module + ".weight");
    return weight && is_fp8(weight->dtype);
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, name(), read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    const io::TensorView& weight = parts.take("weight");
    require_tensor(weight, {io::DType::kF8_E4M3}, shape.sizes());
    const io::TensorView& scale = scale_of(parts, weight);
    for (const char* ignored : kIgnoredNames) parts.take_if_there(ignored);
    const BlockSize block = block_size(scale, shape);
    warn_of_other_blocks(module, shape, block);
    at::Tensor scales = read_scales(scale).reshape(
        {blocks_of(shape.out, block.rows), blocks_of(shape.in, block.columns)});
    at::Tensor codes = take_tensor(weight).view(at::kByte);
    refuse_values(weight, codes.bitwise_and(0x7f).eq(0x7f), "a NaN");
    return std::make_unique<Fp8Weight>(
        Fp8Tensor{codes.to(device), scales.to(device), block.rows, block.columns});
  }

  FrozenSize size(const std::string&, const WeightShape& shape) const override {
    const BlockSize block = config_.block_in(shape);
    const int64_t scales = blocks_of(shape.out, block.rows) * blocks_of(shape.in, block.columns);
    return {fp8_format_name(shape.out, shape.in, block.rows, block.columns),
            shape.num_elements() + config_.scale_bytes * scales,
            {WeightKind::kDecoded, at::kFloat}};
  }

 private:
  static const io::TensorView& scale_of(StoredParts& parts, const io::TensorView& weight) {
    for (const char* name : kScaleNames)
      if (const io::TensorView* scale = parts.take_if_there(name)) return *scale;
    fail<FormatError>("{}: tensor {} is F8_E4M3 and must have a scale beside it, called {}",
                      weight.file, weight.name, fmt::join(kScaleNames, ", "));
  }

  void warn_of_other_blocks(const std::string& module, const WeightShape& shape,
                            const BlockSize& block) const {
    const BlockSize said = config_.block_in(shape);
    const auto text = [&](const BlockSize& of) {
      return fmt::format("{} x {} scales", blocks_of(shape.out, of.rows),
                         blocks_of(shape.in, of.columns));
    };
    if (!config_.place.empty() && text(said) != text(block))
      warn_of_tensors(config_.place, "blocks", module, text(said), text(block));
  }

  // Of block sizes that give as many scales nothing but the config tells which is right.
  static void require_likely_block(const io::TensorView& scale, int64_t count, int64_t block) {
    if (is_likely_size(count, block)) return;
    reject_tensor(scale, fmt::format("have blocks that divide {} or are a power of two, which the "
                                     "config's {} is not; set it there to the size with which the "
                                     "weights were quantized",
                                     count, block));
  }

  // The block that one scale of the grid covers: told by the grid where it is one scale, or one a
  // row; else the configuration says it, or the grid divides the matrix evenly.
  BlockSize block_size(const io::TensorView& scale, const WeightShape& shape) const {
    const std::vector<int64_t>& grid = scale.shape;
    if (scale.num_elements() == 1) return {shape.out, shape.in};
    if (grid == std::vector{shape.out} || grid == std::vector{shape.out, int64_t{1}})
      return {1, shape.in};
    if (config_.block) {
      const auto [rows, columns] = *config_.block;
      const std::vector wanted{blocks_of(shape.out, rows), blocks_of(shape.in, columns)};
      if (grid == wanted) {
        require_likely_block(scale, shape.out, rows);
        require_likely_block(scale, shape.in, columns);
        return *config_.block;
      }
      reject_tensor(scale, fmt::format("be a scale for each block of {} x {}, [{}]", rows, columns,
                                       fmt::join(wanted, ", ")));
    }
    if (grid.size() != 2 || grid[0] < 1 || grid[1] < 1 || shape.out % grid[0] != 0 ||
        shape.in % grid[1] != 0)
      reject_tensor(scale, fmt::format("divide [{}, {}] into blocks of one size, as config.json "
                                       "does not give one in weight_block_size",
                                       shape.out, shape.in));
    return {shape.out / grid[0], shape.in / grid[1]};
  }

  // uint8 where they are powers of two.
  static at::Tensor read_scales(const io::TensorView& scale) {
    switch (scale.dtype) {
      case io::DType::kF32:
      case io::DType::kBF16:
      case io::DType::kF16:
        return take_finite(scale);
      case io::DType::kU8:
      case io::DType::kF8_E8M0: {
        at::Tensor exponents = take_tensor(scale).view(at::kByte);
        refuse_values(scale, exponents.eq(255), "a NaN");
        return exponents;
      }
      default:
        reject_tensor(scale, "be F32, BF16, F16, F8_E8M0 or U8");
    }
  }

  Fp8Config config_;
};

}  // namespace

std::unique_ptr<StoredFormat> fp8_format(const io::JsonNode& config) {
  return std::make_unique<Fp8Format>(config);
}

}  // namespace qlora::quant

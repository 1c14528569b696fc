#include "quant/prequantized/bitsandbytes.h"

#include "base/error.h"
#include "quant/formats/bitsandbytes_layout.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr const char* kParts[] = {"absmax",
                                  "quant_map",
                                  "nested_absmax",
                                  "nested_quant_map",
                                  "bitsandbytes__nf4",
                                  "bitsandbytes__fp4",
                                  "SCB",
                                  "weight_format"};

constexpr std::string_view kRead[] = {"load_in_4bit",
                                      "load_in_8bit",
                                      "bnb_4bit_compute_dtype",
                                      "bnb_4bit_quant_type",
                                      "bnb_4bit_use_double_quant",
                                      "llm_int8_threshold"};
// Said again, said by the tensors, or of what lies on the CPU.
constexpr std::string_view kHarmless[] = {"_load_in_4bit",
                                          "_load_in_8bit",
                                          "bnb_4bit_quant_storage",
                                          "llm_int8_enable_fp32_cpu_offload",
                                          "llm_int8_has_fp16_weight",
                                          "llm_int8_skip_modules"};

// transformers quantizes what it loads in the type in which it computes, float32 by default.
at::ScalarType compute_dtype(const io::JsonNode& config) {
  const auto node = config.find("bnb_4bit_compute_dtype");
  if (!node || !node->value().is_string()) return at::kFloat;
  const std::string name = node->as_string();
  if (name == "bfloat16") return at::kBFloat16;
  return name == "float16" ? at::kHalf : at::kFloat;
}

bool is_four_bit(const QuantizationOptions& options) { return !options.method.starts_with("int8"); }

class Bitsandbytes final : public StoredFormat {
 public:
  explicit Bitsandbytes(const io::JsonNode& config)
      : stored_(bitsandbytes_options(config)), dtype_(compute_dtype(config)) {
    check_config_keys(config, kRead, kHarmless);
  }

  std::string name() const override { return "bitsandbytes " + stored_.method; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return is_bitsandbytes_module(file, module);
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    require(options, StoredParts(file, module, name(), read).place());
    const double threshold = options.method == "as_stored" ? stored_.threshold : options.threshold;
    return read_bitsandbytes_module(
        file, module, shape, {options.method == "int8_weight_only", threshold}, device, read);
  }

  void require(const QuantizationOptions& wanted, const std::string& place) const override {
    if (wanted.method == "as_stored") return;
    const bool same = wanted.method == stored_.method ||
                      (wanted.method == "int8_weight_only" && stored_.method == "int8");
    if (!same) require_as_stored(wanted, stored_.method, place);
    if (is_four_bit(stored_) && wanted.double_quant != stored_.double_quant) {
      fail<ConfigError>(
          "quantization.double_quant: {} holds weights {} double quantization; leave out the "
          "section quantization to take them as they are",
          place, stored_.double_quant ? "with" : "without");
    }
  }
  std::optional<QuantizationOptions> options() const override { return stored_; }

  FrozenSize size(const std::string& module, const WeightShape& shape) const override {
    QuantizationOptions packed = stored_;
    packed.skip_modules.clear();
    return frozen_size(shape, dtype_, packed, module);
  }

 private:
  QuantizationOptions stored_;
  at::ScalarType dtype_;
};

}  // namespace

QuantizationOptions bitsandbytes_options(const io::JsonNode& config) {
  QuantizationOptions stored;
  const bool four = config.bool_or("load_in_4bit", false);
  const bool eight = config.bool_or("load_in_8bit", false);
  if (four == eight) {
    fail<FormatError>("{}: exactly one of load_in_4bit and load_in_8bit must be true",
                      config.place());
  }
  if (eight) {
    stored.method = "int8";
    if (const auto threshold = config.find("llm_int8_threshold"))
      stored.threshold = threshold->as_number();
    return stored;
  }
  stored.method = config.string_or("bnb_4bit_quant_type", "fp4");
  if (stored.method != "nf4" && stored.method != "fp4")
    config.at("bnb_4bit_quant_type").reject("nf4 or fp4");
  stored.double_quant = config.bool_or("bnb_4bit_use_double_quant", false);
  return stored;
}

std::unique_ptr<StoredFormat> bitsandbytes_format(const io::JsonNode& config) {
  return std::make_unique<Bitsandbytes>(config);
}

}  // namespace qlora::quant

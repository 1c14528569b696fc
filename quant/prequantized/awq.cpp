#include "quant/prequantized/awq.h"

#include <ATen/ATen.h>

#include <array>

#include "base/ascii_case.h"
#include "base/error.h"
#include "quant/prequantized/code_words.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/module_settings.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr std::array kBits = {2, 3, 4, 5, 6, 7, 8};
constexpr int kGemvBits = 4;
constexpr const char* kParts[] = {"qweight", "qzeros", "scales"};
constexpr std::string_view kRead[] = {"bits",       "w_bit",
                                      "group_size", "q_group_size",
                                      "sym",        "zero_point",
                                      "lm_head",    "dynamic",
                                      "format",     "checkpoint_format",
                                      "version",    "backend",
                                      "pack_dtype", "data_type",
                                      "desc_act",   "scale_search_chunked_activations"};

bool is_gemv(const io::JsonNode& config) {
  if (const auto backend = config.find("backend"); backend && backend->value() == "llm-awq")
    backend->reject("a writer of version gemm or gemv: llm-awq's words of 16 bits are not read");
  const auto version = first_of(config, {"version", "checkpoint_format", "format"});
  if (!version) return false;
  const std::string name = ascii_lower_case(version->as_string());
  if (name != "gemm" && name != "gemv")
    version->reject("'gemm' or 'gemv', the orders of codes that are read");
  return name == "gemv";
}

// Models whose MLP has no gate may have scales of its activation, which are no part of a layer.
void require_no_scaled_activation(const io::TensorFile& file, const std::string& module) {
  const size_t parent = module.rfind('.');
  if (parent == std::string::npos) return;
  if (const io::TensorView* scales = file.find(module.substr(0, parent) + ".act.scales"))
    fail<FormatError>(
        "{}: tensor {} scales the output of an activation, which this version does not read; give "
        "the original 16-bit model",
        scales->file, scales->name);
}

// Words of a row of gemv's zeros.
int64_t gemv_zero_words(int64_t groups, int64_t group_size) {
  const int64_t multiple = group_size >= 128 ? 1 : group_size >= 64 ? 2 : group_size >= 32 ? 4 : 8;
  const int64_t words = (groups + 7) / 8;
  return (words + multiple - 1) / multiple * multiple;
}

GroupedTensor decode_gemm(StoredParts& parts, const WeightShape& shape,
                          const ModuleSettings& settings) {
  const int bits = settings.bits;
  const int64_t columns = num_words(shape.out, bits);
  const int64_t groups = num_groups(shape.in, settings.group_size);
  const at::Tensor words = parts.take("qweight", io::DType::kI32, {shape.in, columns});
  const at::Tensor zeros = parts.take("qzeros", io::DType::kI32, {groups, columns});
  GroupedTensor weight;
  weight.bits = kept_bits(bits);
  weight.in = shape.in;
  weight.group_size = group_columns(shape.in, settings.group_size);
  const bool interleaved = bits == 4;
  weight.codes = interleaved ? rows_of_awq_words(words, shape.out)
                             : rows_of_input_streams(words, bits, shape.out);
  weight.zeros =
      (interleaved ? unpack_awq_words(zeros, shape.out) : unpack_stream(zeros, bits, shape.out))
          .t()
          .contiguous();
  weight.scales = parts.take_scales("scales", {groups, shape.out}).t().contiguous();
  return weight;
}

GroupedTensor decode_gemv(StoredParts& parts, const WeightShape& shape,
                          const ModuleSettings& settings) {
  const int64_t size = group_columns(shape.in, settings.group_size);
  if (shape.in % size != 0)
    parts.reject("qweight", fmt::format("must have inputs in whole groups of {}, found {} inputs",
                                        size, shape.in));
  const int64_t groups = shape.in / size, zero_words = gemv_zero_words(groups, size);
  GroupedTensor weight;
  weight.bits = kGemvBits;
  weight.in = shape.in;
  weight.group_size = size;
  weight.codes = rows_of_stream(
      parts.take("qweight", io::DType::kI32, {shape.out, num_words(shape.in, kGemvBits)}),
      kGemvBits, shape.in);
  weight.zeros = unpack_stream(parts.take("qzeros", io::DType::kI32, {shape.out, zero_words}),
                               kGemvBits, 8 * zero_words)
                     .narrow(1, 0, groups)
                     .contiguous();
  weight.scales =
      parts.take_scales("scales", {shape.out, 8 * zero_words}).narrow(1, 0, groups).contiguous();
  return weight;
}

class Awq final : public StoredFormat {
 public:
  explicit Awq(const io::JsonNode& config) : gemv_(is_gemv(config)), settings_(config, kBits) {
    if (gemv_ && settings_.of("").back().bits != kGemvBits)
      config.at(config.find("bits") ? "bits" : "w_bit").reject("4, the bits of version gemv");
    require_integers(config);
    check_config_keys(config, kRead, keys_of_choosing());
  }

  std::string name() const override { return "AWQ"; }
  std::span<const char* const> parts() const override { return kParts; }

  bool holds(const io::TensorFile& file, const std::string& module) const override {
    return file.find(module + ".qweight") != nullptr;
  }

  std::unique_ptr<FrozenWeight> read(const io::TensorFile& file, const std::string& module,
                                     const WeightShape& shape, const QuantizationOptions& options,
                                     at::Device device,
                                     std::set<std::string>& read) const override {
    StoredParts parts(file, module, name(), read);
    require_as_stored(options, name(), parts.place());
    require_matrix(shape, parts);
    require_no_scaled_activation(file, module);
    require_version(parts, shape);
    const ModuleSettings settings =
        gemv_ ? settings_.of(module).front() : fitting_settings(parts, shape);
    GroupedTensor weight =
        gemv_ ? decode_gemv(parts, shape, settings) : decode_gemm(parts, shape, settings);
    parts.require_all_taken();
    require_likely_groups(parts, "scales", shape.in, settings.group_size, settings_.place());
    settings_.warn_of_other_zeros(module, settings.bits, weight.zeros);
    settings_.warn_of_other_sizes(module, shape.in, settings.bits, settings.group_size);
    return grouped_layer(std::move(weight), "awq", module, device);
  }

  FrozenSize size(const std::string& module, const WeightShape& shape) const override {
    const ModuleSettings settings = settings_.of(module).front();
    return grouped_size(
        shape, {.bits = settings.bits, .group_size = settings.group_size, .zeros = !settings.sym},
        "awq");
  }

 private:
  // FormatError if the tensors lie as the other version has them.
  void require_version(const StoredParts& parts, const WeightShape& shape) const {
    const bool as_gemm = parts.has("qweight", {shape.in, num_words(shape.out, kGemvBits)}) &&
                         parts.size("scales", 1) == shape.out;
    const bool as_gemv = parts.has("qweight", {shape.out, num_words(shape.in, kGemvBits)}) &&
                         parts.size("scales", 0) == shape.out;
    if (as_gemm == as_gemv || as_gemv == gemv_) return;
    parts.reject("qweight", fmt::format("lies as version {0} has it, and {1} has version {2}; set "
                                        "version to {0} there",
                                        as_gemv ? "gemv" : "gemm", settings_.place(),
                                        gemv_ ? "gemv" : "gemm"));
  }

  // The first of the config's that agree with the tensors; else bits and groups by the tensors
  // where these leave no choice; else the likeliest, to say what does not agree.
  ModuleSettings fitting_settings(const StoredParts& parts, const WeightShape& shape) const {
    const std::vector<ModuleSettings> said = settings_.of(parts.module());
    const auto has_bits = [&](int bits) {
      return parts.has("qweight", {shape.in, num_words(shape.out, bits)});
    };
    for (const ModuleSettings& one : said)
      if (has_bits(one.bits) &&
          parts.has("scales", {num_groups(shape.in, one.group_size), shape.out}))
        return one;
    ModuleSettings settings = said.front();
    const int64_t groups = parts.size("scales", 0);
    const bool agree = groups > 0 && parts.size("qzeros", 0) == groups;
    if (!agree || shape.in % groups != 0) return settings;
    settings.group_size = shape.in / groups;
    if (!has_bits(settings.bits))
      settings.bits = only_fitting(kBits, has_bits).value_or(settings.bits);
    return settings;
  }

  bool gemv_;
  SettingsOfModules settings_;
};

}  // namespace

std::unique_ptr<StoredFormat> awq_format(const io::JsonNode& config) {
  return std::make_unique<Awq>(config);
}

}  // namespace qlora::quant

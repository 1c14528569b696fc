#include "quant/prequantized/gptq.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "quant/prequantized/code_words.h"
#include "quant/prequantized/config_keys.h"
#include "quant/prequantized/grouped_layer.h"
#include "quant/prequantized/module_settings.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

constexpr std::array kBits = {2, 3, 4, 8};
constexpr const char* kParts[] = {"qweight", "qzeros", "scales", "g_idx"};
constexpr std::string_view kRead[] = {"bits",
                                      "w_bit",
                                      "group_size",
                                      "q_group_size",
                                      "sym",
                                      "zero_point",
                                      "desc_act",
                                      "lm_head",
                                      "dynamic",
                                      "format",
                                      "checkpoint_format",
                                      "pack_dtype",
                                      "is_marlin_format",
                                      "data_type"};

bool is_version_1(const io::JsonNode& config) {
  const auto format = first_of(config, {"checkpoint_format", "format"});
  if (config.bool_or("is_marlin_format", false))
    config.at("is_marlin_format").reject("false: Marlin's order of the codes is not read");
  if (!format) return true;
  const std::string name = format->as_string();
  if (name != "gptq" && name != "gptq_v2")
    format->reject("'gptq' or 'gptq_v2', the orders of codes that are read");
  return name == "gptq";
}

// Words of zeros of version 1 to those of version 2.
at::Tensor plus_one_in_each_field(const at::Tensor& words, int bits) {
  uint32_t ones = 0;
  for (int bit = 0; bit < 32; bit += bits) ones |= 1u << bit;
  at::Tensor result = at::empty_like(words);
  const auto* from = reinterpret_cast<const uint32_t*>(words.const_data_ptr<int32_t>());
  auto* to = reinterpret_cast<uint32_t*>(result.mutable_data_ptr<int32_t>());
  for (int64_t i = 0; i < words.numel(); ++i) to[i] = from[i] + ones;
  return result;
}

// [groups, ⌈out b / 32⌉] to [out, groups].
at::Tensor decode_zeros(const at::Tensor& words, int bits, int64_t out, bool version_1) {
  at::Tensor zeros;
  if (version_1 && bits != 3)
    zeros = unpack_stream(plus_one_in_each_field(words, bits), bits, out);
  else
    zeros = unpack_stream(words, bits, out);
  if (version_1 && bits == 3) zeros = zeros.add(1).bitwise_and(7);
  return zeros.t().contiguous();
}

// The size of groups that lie one after the other; 0 if g_idx has them in another order.
int64_t size_of_ordered_groups(const at::Tensor& g_idx, int64_t groups) {
  const auto* group_of = g_idx.const_data_ptr<int32_t>();
  const int64_t in = g_idx.numel();
  const int64_t size =
      std::find_if(group_of, group_of + in, [](int32_t g) { return g != 0; }) - group_of;
  if (size == 0 || num_groups(in, size) != groups) return 0;
  for (int64_t i = 0; i < in; ++i)
    if (group_of[i] != i / size) return 0;
  return size;
}

at::Tensor take_groups(StoredParts& parts, int64_t in, int64_t groups) {
  at::Tensor g_idx = parts.take("g_idx", io::DType::kI32, {in});
  const auto* group_of = g_idx.const_data_ptr<int32_t>();
  for (int64_t i = 0; i < in; ++i)
    if (group_of[i] < 0 || group_of[i] >= groups)
      parts.reject("g_idx", fmt::format("must hold groups from 0 to {}, found {} at {}", groups - 1,
                                        group_of[i], i));
  return g_idx;
}

class Gptq final : public StoredFormat {
 public:
  explicit Gptq(const io::JsonNode& config)
      : version_1_(is_version_1(config)), settings_(config, kBits) {
    require_integers(config);
    check_config_keys(config, kRead, keys_of_choosing());
  }

  std::string name() const override { return "GPTQ"; }
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
    GroupedTensor weight = decode(parts, shape);
    parts.require_all_taken();
    return grouped_layer(std::move(weight), "gptq", module, device);
  }

  FrozenSize size(const std::string& module, const WeightShape& shape) const override {
    const ModuleSettings settings = settings_.of(module).front();
    return grouped_size(
        shape,
        {.bits = settings.bits,
         .group_size = settings.group_size,
         .zeros = !settings.sym,
         .group_of = settings.desc_act && num_groups(shape.in, settings.group_size) > 1},
        "gptq");
  }

 private:
  GroupedTensor decode(StoredParts& parts, const WeightShape& shape) const {
    const bool has_groups = parts.find("g_idx") != nullptr;
    const ModuleSettings settings = fitting_settings(parts, shape);
    const int64_t said_groups = num_groups(shape.in, settings.group_size);
    const int64_t stored_groups = parts.size("scales", 0);
    const bool agree = stored_groups > 0 && parts.size("qzeros", 0) == stored_groups;
    const int64_t groups = has_groups && agree ? stored_groups : said_groups;
    if (!has_groups && settings.desc_act && groups > 1)
      reject_lost_order(parts, "qweight", "g_idx", settings_.place() + " has desc_act");
    GroupedTensor weight;
    weight.bits = settings.bits;
    weight.in = shape.in;
    weight.group_size = group_columns(shape.in, settings.group_size);
    weight.codes = rows_of_stream(
        transposed_words(parts.take("qweight", io::DType::kI32,
                                    {num_words(shape.in, settings.bits), shape.out})),
        settings.bits, shape.in);
    weight.zeros = decode_zeros(
        parts.take("qzeros", io::DType::kI32, {groups, num_words(shape.out, settings.bits)}),
        settings.bits, shape.out, version_1_);
    weight.scales = parts.take_scales("scales", {groups, shape.out}).t().contiguous();
    if (has_groups)
      set_groups(weight, take_groups(parts, shape.in, groups), groups, parts.module());
    else
      require_likely_groups(parts, "scales", shape.in, settings.group_size, settings_.place());
    settings_.warn_of_other_zeros(parts.module(), settings.bits, weight.zeros);
    settings_.warn_of_other_sizes(parts.module(), shape.in, settings.bits, weight.group_size);
    return weight;
  }

  void set_groups(GroupedTensor& weight, const at::Tensor& group_of, int64_t groups,
                  const std::string& module) const {
    const int64_t size = size_of_ordered_groups(group_of, groups);
    if (size > 0) {
      weight.group_size = size;
      return;
    }
    weight.group_of = group_of;
    if (num_groups(weight.in, weight.group_size) != groups)
      weight.group_size = num_groups(weight.in, groups);
    if (!settings_.of(module).front().desc_act)
      warn_of_tensors(settings_.place(), "desc_act", module, "no desc_act",
                      "a g_idx with groups of columns in an order of their own");
  }

  // The first of the config's that agree with the tensors. If none does: bits by qweight where
  // g_idx has the groups; else the likeliest, to say what does not agree.
  ModuleSettings fitting_settings(const StoredParts& parts, const WeightShape& shape) const {
    const std::vector<ModuleSettings> said = settings_.of(parts.module());
    const auto has_bits = [&](int bits) {
      return parts.has("qweight", {num_words(shape.in, bits), shape.out});
    };
    for (const ModuleSettings& one : said)
      if (has_bits(one.bits) &&
          parts.has("scales", {num_groups(shape.in, one.group_size), shape.out}))
        return one;
    ModuleSettings settings = said.front();
    if (!parts.find("g_idx")) return settings;
    for (const ModuleSettings& one : said)
      if (has_bits(one.bits)) return one;
    settings.bits = only_fitting(kBits, has_bits).value_or(settings.bits);
    return settings;
  }

  bool version_1_;
  SettingsOfModules settings_;
};

}  // namespace

std::unique_ptr<StoredFormat> gptq_format(const io::JsonNode& config) {
  return std::make_unique<Gptq>(config);
}

}  // namespace qlora::quant

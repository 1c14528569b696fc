#include "quant/prequantized/config_keys.h"

#include <nlohmann/json.hpp>
#include <optional>

#include "base/warn_once.h"
#include "io/json_text.h"
#include "io/known_keys.h"
#include "quant/prequantized/stored_parts.h"

namespace qlora::quant {
namespace {

// Of every format: which modules are packed, which their tensors say; who wrote it; the keys and
// values of attention, which are not stored; how to load it.
constexpr std::string_view kOfAll[] = {"quant_method",
                                       "method",
                                       "modules_to_not_convert",
                                       "modules_to_convert",
                                       "ignored_layers",
                                       "ignore",
                                       "kv_cache_scheme",
                                       "kv_cache_quant_algo",
                                       "dequantize",
                                       "version",
                                       "producer",
                                       "provider",
                                       "meta"};

// Spoken of below.
constexpr std::string_view kChecked[] = {
    "rotation",       "rotation_config", "transform_config", "adapter",     "act_bits",
    "act_group_size", "act_data_type",   "act_sym",          "act_dynamic", "act_max_scale"};

constexpr std::string_view kChoosing[] = {
    // GPTQModel, AutoGPTQ and optimum
    "act_group_aware", "awq_gemm_checkpoint", "backend", "batch_size", "block_name_to_quantize",
    "cache_block_outputs", "cache_examples_on_gpu", "calibration", "damp", "damp_auto_increment",
    "damp_percent", "dataset", "device", "disable_exllama", "exllama_config", "fail_safe",
    "failsafe", "fallback", "foem", "gptaq", "hessian", "hyb_act", "max_input_length",
    "mock_quantization", "model_file_base_name", "model_name_or_path", "model_seqlen",
    "module_name_preceding_first_block", "modules_in_block_to_quantize", "mse", "offload_to_disk",
    "offload_to_disk_path", "pack_impl", "pad_token_id", "quantizer", "static_groups", "tokenizer",
    "true_sequential", "use_cuda_fp16", "use_exllama", "use_triton", "uri", "v2", "v2_alpha",
    "v2_memory_device",
    // AutoAWQ
    "apply_clip", "calib_data", "do_fuse", "duo_scaling", "export_compatible", "fuse_max_seq_len",
    "modules_to_fuse",
    // auto-round
    "algorithm", "amp", "autoround_version", "dynamic_max_gap", "enable_adam", "enable_alg_ext",
    "enable_deterministic_algorithms", "enable_minmax_tuning", "enable_norm_bias_tuning",
    "enable_quanted_input", "enable_torch_compile", "formats", "gradient_accumulate_steps",
    "infer_bs_coeff", "iters", "low_cpu_mem_usage", "low_gpu_mem_usage", "lr", "lr_scheduler",
    "minmax_lr", "model_dtype", "momentum", "nblocks", "not_use_best_mse", "nsamples",
    "quant_block_list", "quant_lm_head", "quant_nontext_module", "regex_config", "sampler",
    "scale_dtype", "scheme", "seed", "seqlen", "static_attention_dtype", "static_kv_dtype",
    "super_bits", "super_group_size", "supported_types", "to_quant_block_names", "train_bs",
    "use_quant_input"};

// Null, false, nothing, or a word for it.
bool is_unset(const nlohmann::json& value) {
  return value.is_null() || value == false || value == "" || value == "none" || value == "None" ||
         (value.is_structured() && value.empty());
}

std::optional<io::JsonNode> set_member(const io::JsonNode& config, const char* key) {
  const auto node = config.find(key);
  return node && !is_unset(node->value()) ? node : std::nullopt;
}

void check_rotations(const io::JsonNode& config) {
  // The reader of compressed-tensors has its own word for it.
  if (!config.find("config_groups"))
    for (const char* key : {"rotation_config", "transform_config"})
      if (const auto rotated = set_member(config, key))
        rotated->reject("absent: transforms of a layer's input are not read");
  if (const auto rotation = set_member(config, "rotation"))
    log::warning_once(
        "{} is {}: the weights were rotated before they were quantized; they are used as they lie, "
        "and no input of a layer is rotated here",
        rotation->place(), io::json_text(rotation->value()));
}

void check_adapter(const io::JsonNode& config) {
  if (const auto adapter = set_member(config, "adapter"))
    log::warning_once(
        "{} says that an adapter corrects the quantized weights; it is not applied, and loss and "
        "answers are those of the weights without it",
        adapter->place());
}

void check_activations(const io::JsonNode& config) {
  constexpr int64_t kNotQuantized = 16;
  const auto bits = set_member(config, "act_bits");
  const int64_t count = bits ? bits->as_integer(0, 64) : 0;
  if (count > 0 && count < kNotQuantized) warn_of_quantized_activations(*bits);
}

// What a key that is not known would switch on is off.
nlohmann::json without_false(const nlohmann::json& object) {
  nlohmann::json rest = nlohmann::json::object();
  for (const auto& [key, value] : object.items())
    if (value != false) rest[key] = value;
  return rest;
}

}  // namespace

ConfigKeys keys_of_choosing() { return kChoosing; }

void check_config_keys(const io::JsonNode& config, ConfigKeys read, ConfigKeys harmless) {
  check_rotations(config);
  check_adapter(config);
  check_activations(config);
  const nlohmann::json others = without_false(config.value());
  io::warn_of_other_keys(io::JsonNode(others, config.place()), {kOfAll, kChecked, read, harmless});
}

}  // namespace qlora::quant

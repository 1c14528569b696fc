// An adapter on disk as PEFT lays it out: adapter_config.json beside adapter_model.safetensors.
// Beside them qlora_base.json records which base the adapter was trained on.
#pragma once

#include <set>
#include <string>

#include "lora/adapter_base.h"
#include "lora/attach.h"
#include "lora/lora_options.h"
#include "lora/separate_experts.h"

namespace qlora::lora {

// What an adapter directory calls the file of its tensors, as PEFT does.
constexpr const char* kAdapterTensors = "adapter_model.safetensors";

// Writes the three files into `directory`, which must exist. Each is flushed to disk. IoError.
// `separate`: experts in the form of transformers 4, with these names; null: in PEFT's of today.
void write_adapter(const std::string& directory, const AdapterSet& adapters,
                   const LoraOptions& options, const AdapterBase& base,
                   const SeparateNames* separate = nullptr);

// What is needed to attach slots that the tensors of `directory` fit: rank, alpha, targets, ...
// FormatError naming the key of adapter_config.json for anything this version cannot reproduce
// (layer_replication, lora_bias, another peft_type, ...).
LoraOptions read_adapter_options(const std::string& directory);
// "fan_in_fan_out" of adapter_config.json: the adapted layers of the base are Conv1Ds. It changes
// nothing in how the tensors act.
bool read_fan_in_fan_out(const std::string& directory);
// adapter_model.safetensors of `directory`. FormatError if there is a pickle in its place.
std::string adapter_tensor_file(const std::string& directory);
// Copies the tensors into `adapters` and publishes them. FormatError if one is missing, superfluous
// or of another shape. `passed_over`: tensors to pass over (FittedAdapter::passed_over).
void read_adapter_tensors(const std::string& directory, AdapterSet& adapters,
                          const std::set<std::string>& passed_over = {});

}  // namespace qlora::lora

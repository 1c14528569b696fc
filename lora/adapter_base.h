// qlora_base.json: which base an adapter was trained on, beside the files that PEFT knows.
#pragma once

#include <optional>
#include <string>

#include "quant/quantization_options.h"

namespace qlora::lora {

// The base an adapter belongs to.
struct AdapterBase {
  std::string name;  // base_model_name_or_path, with its revision as "org/name@revision"
  std::string path;  // where the weights were read from
  quant::QuantizationOptions quantization;
  std::string dtype;  // of the modules that stay unquantized
  std::string hash;   // CausalLm::base_hash()
  // What the adapter started from, as LoraOptions::init. After LoftQ, PiSSA and OLoRA it holds a
  // part of the base's weights and acts as it was trained on that base alone. Empty: one of these,
  // and it is not known which.
  std::string init = "default";
  // Of the products in training: "bfloat16"; empty in what older versions wrote, or if nothing was
  // trained.
  std::string compute_dtype = "";
  // Of a base that a run wrote itself: the model that it was made from, as `name`. Empty: the base
  // is the model that `name` says.
  std::string made_from = "";
  // Of a base whose files hold it quantized: by what, "gptq" as quant_method of its config.json, or
  // "gguf"; and in words, "GPTQ, 4 bit, groups of 32".
  std::string stored_by = "", stored_as = "";
};

// Writes qlora_base.json into `directory`, flushed to disk. IoError.
void write_adapter_base(const std::string& directory, const AdapterBase& base);
// From qlora_base.json; nothing if the adapter was made elsewhere.
std::optional<AdapterBase> read_adapter_base(const std::string& directory);
// For whoever has the adapter elsewhere: in the place of a path its last name, or of one into the
// hub's cache what lies below that. Hub ids stay.
AdapterBase without_places(AdapterBase base);
// AdapterBase::init; of an adapter made elsewhere what PEFT's init_lora_weights names.
std::string read_adapter_init(const std::string& directory);

}  // namespace qlora::lora

#include "lora/adapter_base.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/hub_id.h"
#include "io/atomic_write.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/user_path.h"

namespace qlora::lora {
namespace {
namespace fs = std::filesystem;

std::string in(const std::string& directory, const char* name) {
  return (fs::path(directory) / name).string();
}

constexpr const char* kBaseFile = "qlora_base.json";

}  // namespace

void write_adapter_base(const std::string& directory, const AdapterBase& base) {
  const nlohmann::ordered_json record = {{"base_hash", base.hash},
                                         {"model_path", base.path},
                                         {"model_name", base.name},
                                         {"quantization",
                                          {{"method", base.quantization.method},
                                           {"double_quant", base.quantization.double_quant},
                                           {"block_size", base.quantization.block_size},
                                           {"threshold", base.quantization.threshold},
                                           {"skip_modules", base.quantization.skip_modules}}},
                                         {"dtype", base.dtype},
                                         {"init", base.init},
                                         {"compute_dtype", base.compute_dtype},
                                         {"made_from", base.made_from},
                                         {"stored_by", base.stored_by},
                                         {"stored_as", base.stored_as}};
  io::write_file_atomically(in(directory, kBaseFile), io::json_text_in_utf8(record, 2) + "\n");
}

std::optional<AdapterBase> read_adapter_base(const std::string& directory) {
  const std::string path = in(directory, kBaseFile);
  if (!fs::exists(path)) return std::nullopt;
  const nlohmann::json document = io::read_json_file(path);
  const io::JsonNode record(document, path);
  AdapterBase base;
  base.hash = record.at("base_hash").as_string();
  base.path = record.at("model_path").as_string();
  base.name = record.at("model_name").as_string();
  const io::JsonNode quantization = record.at("quantization");
  base.quantization.method = quantization.at("method").as_string();
  base.quantization.double_quant = quantization.at("double_quant").as_bool();
  base.quantization.block_size = quantization.at("block_size").as_integer(1, 1 << 20);
  if (const auto threshold = quantization.find("threshold"))
    base.quantization.threshold = threshold->as_number();
  base.quantization.skip_modules.clear();
  for (const io::JsonNode& module : quantization.at("skip_modules").elements())
    base.quantization.skip_modules.push_back(module.as_string());
  base.quantization.validate();
  base.dtype = record.at("dtype").as_string();
  base.init = record.string_or("init", base.init);  // and the like: older versions wrote none
  base.compute_dtype = record.string_or("compute_dtype", "");
  base.made_from = record.string_or("made_from", "");
  base.stored_by = record.string_or("stored_by", "");
  base.stored_as = record.string_or("stored_as", "");
  return base;
}

AdapterBase without_places(AdapterBase base) {
  for (std::string* place : {&base.name, &base.path, &base.made_from}) {
    if (hub_id_of(*place)) continue;
    const auto in_cache = hub_file_of(*place);
    if (!in_cache) {
      *place = io::last_part(*place);
      continue;
    }
    fs::path below = fs::path(hub_folder(in_cache->hub.id)) / "snapshots" / in_cache->hub.revision;
    if (!in_cache->file.empty()) below /= in_cache->file;
    *place = below.string();
  }
  return base;
}

std::string read_adapter_init(const std::string& directory) {
  if (const auto base = read_adapter_base(directory)) return base->init;
  const std::string path = in(directory, "adapter_config.json");
  const nlohmann::json document = io::read_json_file(path);
  const io::JsonNode config(document, path);
  const auto init = config.find("init_lora_weights");
  return init && init->value().is_string() ? init->as_string() : "default";
}

}  // namespace qlora::lora

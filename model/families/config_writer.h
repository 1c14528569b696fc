// config.json, written key by key: the inverse of ConfigReader, for models that were read from a
// GGUF file.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/rope_config.h"

namespace qlora::model {

class ConfigWriter {
 public:
  ConfigWriter();
  ~ConfigWriter();
  ConfigWriter(ConfigWriter&&) noexcept;

  // "qwen3" and "Qwen3ForCausalLM", the class of transformers that reads the model.
  void model(const char* model_type, const char* model_class);
  // Each sets the key, also where it was set before. Numbers that float32 holds, as those of GGUF
  // files, are written in the fewest digits that name them: 1e-05, not 9.999999747378752e-06.
  void integer(const std::string& key, int64_t value);
  void number(const std::string& key, double value);
  void flag(const std::string& key, bool value);
  void text(const std::string& key, const std::string& value);
  void integers(const std::string& key, const std::vector<int64_t>& values);
  void numbers(const std::string& key, const std::vector<float>& values);
  void texts(const std::string& key, const std::vector<std::string>& values);
  void null(const std::string& key);
  void object(const std::string& key, const ConfigWriter& value);
  // Null where the value is 0: a cap, a clamp or a window that there is none of.
  void integer_or_null(const std::string& key, int64_t value);
  void number_or_null(const std::string& key, double value);

  const nlohmann::ordered_json& json() const { return *json_; }

 private:
  std::unique_ptr<nlohmann::ordered_json> json_;
};

// The rope_scaling of a config.json: {"rope_type": "yarn", "factor": ...}.
ConfigWriter rope_dictionary(const RopeConfig& rope);

}  // namespace qlora::model

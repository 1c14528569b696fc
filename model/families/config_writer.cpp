#include "model/families/config_writer.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace qlora::model {
namespace {

double in_fewest_digits(double number) {
  const auto narrow = static_cast<float>(number);
  if (!(std::abs(number - narrow) <= 1e-12 * std::abs(number))) return number;
  char text[32];
  const char* end = std::to_chars(text, text + sizeof(text), narrow).ptr;
  double read = number;
  std::from_chars(text, end, read);
  return read;
}

}  // namespace

ConfigWriter::ConfigWriter()
    : json_(std::make_unique<nlohmann::ordered_json>(nlohmann::ordered_json::object())) {}
ConfigWriter::~ConfigWriter() = default;
ConfigWriter::ConfigWriter(ConfigWriter&&) noexcept = default;

void ConfigWriter::model(const char* model_type, const char* model_class) {
  texts("architectures", {model_class});
  text("model_type", model_type);
}

void ConfigWriter::integer(const std::string& key, int64_t value) { (*json_)[key] = value; }
void ConfigWriter::number(const std::string& key, double value) {
  (*json_)[key] = in_fewest_digits(value);
}
void ConfigWriter::flag(const std::string& key, bool value) { (*json_)[key] = value; }
void ConfigWriter::text(const std::string& key, const std::string& value) { (*json_)[key] = value; }
void ConfigWriter::integers(const std::string& key, const std::vector<int64_t>& values) {
  (*json_)[key] = values;
}
void ConfigWriter::numbers(const std::string& key, const std::vector<float>& values) {
  std::vector<double> written;
  for (const float value : values) written.push_back(in_fewest_digits(value));
  (*json_)[key] = written;
}
void ConfigWriter::texts(const std::string& key, const std::vector<std::string>& values) {
  (*json_)[key] = values;
}
void ConfigWriter::null(const std::string& key) { (*json_)[key] = nullptr; }
void ConfigWriter::object(const std::string& key, const ConfigWriter& value) {
  (*json_)[key] = value.json();
}
void ConfigWriter::integer_or_null(const std::string& key, int64_t value) {
  value == 0 ? null(key) : integer(key, value);
}
void ConfigWriter::number_or_null(const std::string& key, double value) {
  value == 0 ? null(key) : number(key, value);
}

ConfigWriter rope_dictionary(const RopeConfig& rope) {
  ConfigWriter dictionary;
  dictionary.text("rope_type", rope.type);
  if (rope.type == "default") return dictionary;
  dictionary.number("factor", rope.factor);
  if (rope.type == "llama3") {
    dictionary.number("low_freq_factor", rope.low_freq_factor);
    dictionary.number("high_freq_factor", rope.high_freq_factor);
  }
  if (rope.type == "yarn") {
    dictionary.number("beta_fast", rope.beta_fast);
    dictionary.number("beta_slow", rope.beta_slow);
    if (!rope.truncate) dictionary.flag("truncate", false);
  }
  if (rope.type == "longrope") {
    dictionary.numbers("short_factor", rope.short_factor);
    dictionary.numbers("long_factor", rope.long_factor);
  }
  if (rope.type == "yarn" || rope.type == "longrope")
    dictionary.number("attention_factor", rope.attention_factor);
  if (rope.type == "llama3" || rope.type == "yarn" || rope.type == "longrope")
    dictionary.integer("original_max_position_embeddings",
                       static_cast<int64_t>(rope.original_max_positions));
  return dictionary;
}

}  // namespace qlora::model

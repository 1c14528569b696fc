#include "model/hugging_face_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/error.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/same_computation.h"

namespace qlora::model {
namespace {

struct Module {
  std::string name;
  bool bias;
};

std::vector<Module> modules_of(const Architecture& a) {
  std::vector<Module> all = {{a.embedding.names.hugging_face, false},
                             {a.embedding.positions.names.hugging_face, false},
                             {a.head.names.hugging_face, a.head.bias}};
  for_each_linear(a, [&all](const std::string& module, const LinearSpec& linear) {
    all.push_back({module, linear.bias});
  });
  for_each_norm(a, [&all](const std::string& module, const NormSpec& norm) {
    all.push_back({module, norm.bias});
  });
  return all;
}

std::string first_other_module(const Architecture& wanted, const Architecture& found) {
  const std::vector<Module> a = modules_of(wanted), b = modules_of(found);
  if (a.size() != b.size())
    return fmt::format("the number of modules is {}, not {}", b.size(), a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].name != b[i].name) return fmt::format("{} is called {}", a[i].name, b[i].name);
    if (a[i].bias != b[i].bias)
      return fmt::format("{} has {} bias", a[i].name, b[i].bias ? "a" : "no");
  }
  return "";
}

bool about_equal(double a, double b) {
  return std::abs(a - b) <= 1e-6 * std::max(std::abs(a), std::abs(b));
}

bool same_rotation(const RotarySpec& a, const RotarySpec& b, int64_t length) {
  const auto x = inverse_frequencies(a.rope, a.width, length),
             y = inverse_frequencies(b.rope, b.width, length);
  return about_equal(a.rope.attention_factor, b.rope.attention_factor) &&
         std::ranges::equal(x, y, [](float m, float n) { return about_equal(m, n); });
}

std::string first_other_rotation(const Architecture& wanted, const Architecture& found) {
  for (int64_t layer = 0; layer < wanted.num_layers(); ++layer) {
    const int a = wanted.block(layer).attention().rotary, b = found.block(layer).attention().rotary;
    if (a == kNotRotated || b == kNotRotated) continue;
    for (const int64_t length : {int64_t{1}, wanted.max_positions})
      if (!same_rotation(wanted.rotaries[static_cast<size_t>(a)],
                         found.rotaries[static_cast<size_t>(b)], length))
        return fmt::format("RoPE's frequencies in layer {} are others", layer);
  }
  return "";
}

std::string difference_when_read(const Architecture& a, const nlohmann::ordered_json& config) {
  try {
    const nlohmann::json document = config;
    return first_difference_in_files(a, read_architecture(io::JsonNode(document, "config.json")));
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

std::string first_difference_in_files(const Architecture& wanted, const Architecture& found) {
  std::string difference = first_difference(wanted, found);
  if (difference.empty()) difference = first_other_module(wanted, found);
  if (difference.empty()) difference = first_other_rotation(wanted, found);
  return difference;
}

nlohmann::ordered_json hugging_face_config(const Architecture& a) {
  const Family& family = family_named(a.family);
  if (!family.write)
    fail<ConfigError>(
        "a config.json of a {} model from a GGUF file is not written by this version; export the "
        "adapter (qlora export --format adapter), or start from the model's Hugging Face directory",
        a.family);
  ConfigWriter writer;
  family.write(writer, a);
  const std::string difference = difference_when_read(a, writer.json());
  if (!difference.empty())
    fail<ConfigError>(
        "a config.json of this {} model cannot say what its GGUF file does: {}; export the adapter "
        "(qlora export --format adapter), or start from the model's Hugging Face directory",
        a.family, difference);
  return writer.json();
}

}  // namespace qlora::model

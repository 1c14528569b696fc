#include "cli/inspect_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "base/shown_text.h"
#include "io/gguf.h"
#include "io/gguf_kind.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "io/safetensors.h"
#include "io/weight_directory.h"
#include "model/families/family.h"
#include "model/footprint.h"
#include "model/hub_cache.h"
#include "model/weight_source.h"
#include "recipes/models/base_model.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"

namespace qlora::cli {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::FootprintRow;

// Scales and tables included.
double bits_a_weight(const FootprintRow& row) {
  const auto parameters = static_cast<double>(std::max<int64_t>(row.parameters, 1));
  return 8.0 * static_cast<double>(row.bytes) / parameters;
}

Json footprint_json(const std::vector<FootprintRow>& rows) {
  Json table = {{"rows", Json::array()}, {"formats", Json::object()}};
  FootprintRow total;
  std::map<std::string, FootprintRow> formats;
  for (const FootprintRow& row : rows) {
    table["rows"].push_back({{"module", row.kind},
                             {"count", row.count},
                             {"parameters", row.parameters},
                             {"format", row.format},
                             {"bytes", row.bytes},
                             {"bits_a_weight", bits_a_weight(row)}});
    for (FootprintRow* sum : {&total, &formats[row.format]}) {
      sum->count += row.count;
      sum->parameters += row.parameters;
      sum->bytes += row.bytes;
    }
  }
  const auto facts = [](const FootprintRow& sum) {
    return Json{{"count", sum.count},
                {"parameters", sum.parameters},
                {"bytes", sum.bytes},
                {"bits_a_weight", bits_a_weight(sum)}};
  };
  for (const auto& [format, sum] : formats) table["formats"][format] = facts(sum);
  table["total"] = facts(total);
  return table;
}

// What `read` says of the model. Null for a family that this version does not read; the facts say
// why, and are told all the same.
template <typename Read>
std::optional<model::Architecture> description_by(const Read& read, Json& facts) {
  std::optional<model::Architecture> architecture;
  try {
    architecture = read();
    facts["family"] = architecture->family;
  } catch (const FormatError& error) {
    facts["family"] = nullptr;
    facts["not_read"] = error.what();
  }
  return architecture;
}

Json stored_footprint_json(const std::vector<io::TensorView>& tensors,
                           const std::optional<model::Architecture>& architecture,
                           const model::WeightSource* source = nullptr) {
  return footprint_json(
      model::stored_footprint(tensors, architecture ? &*architecture : nullptr, source));
}

bool is_gguf(const std::string& path) { return path.ends_with(".gguf"); }

std::vector<io::TensorView> tensors_of(const std::string& path) {
  return is_gguf(path) ? io::GgufFile(path).tensors() : io::read_weight_directory(path).tensors;
}

void add_adapter(const std::string& directory, std::vector<FootprintRow>& rows) {
  const std::string path = (fs::path(directory) / "adapter_model.safetensors").string();
  FootprintRow row{"adapter", "float32"};
  for (const io::TensorView& tensor : io::read_safetensors(path).tensors) {
    ++row.count;
    row.parameters += tensor.num_elements();
  }
  row.bytes = 4 * row.parameters;  // trained in float32, whatever the file holds
  rows.push_back(row);
}

// "1,234,567"
std::string grouped(int64_t number) {
  const std::string digits = fmt::format("{}", number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

// Cells of a table's line.
struct Line {
  std::string module, count, parameters, format, bytes, bits;
};

Line line_of(const std::string& module, const std::string& format, const Json& facts) {
  const auto number = [&facts](const char* key) { return facts.at(key).get<int64_t>(); };
  return {module,
          fmt::format("{}", number("count")),
          grouped(number("parameters")),
          format,
          grouped(number("bytes")),
          fmt::format("{:.2f}", facts.at("bits_a_weight").get<double>())};
}

// What `qlora quantize --report` wrote beside the weights; null where there is no such file.
Json quantization_errors(const std::string& directory) {
  const std::string path = (fs::path(directory) / "quantization_report.json").string();
  if (!fs::exists(path)) return nullptr;
  const nlohmann::json document = io::read_json_file(path);
  double sum = 0, largest = 0;
  std::string largest_in;
  const std::vector<io::JsonNode> layers = io::JsonNode(document, path).at("layers").elements();
  for (const io::JsonNode& layer : layers) {
    const double error = layer.at("relative_error").as_number();
    sum += error;
    if (error < largest) continue;
    largest = error;
    largest_in = layer.at("module").as_string();
  }
  if (layers.empty()) return nullptr;
  Json facts = {{"mean_relative_error", sum / static_cast<double>(layers.size())},
                {"largest_relative_error", largest},
                {"largest_in", largest_in}};
  if (const auto found = document.find("against_16_bit"); found != document.end())
    facts["against_16_bit"] = *found;
  return facts;
}

}  // namespace

Json tensor_facts(const std::vector<io::TensorView>& tensors) {
  struct Sum {
    int64_t tensors = 0, elements = 0, bytes = 0;
  };
  std::map<std::string, Sum> sums;
  for (const auto& tensor : tensors) {
    Sum& sum = sums[io::dtype_name(tensor.dtype)];
    ++sum.tensors;
    sum.elements += tensor.num_elements();
    sum.bytes += static_cast<int64_t>(tensor.bytes.size());
  }
  Json facts = Json::object();
  for (const auto& [dtype, sum] : sums)
    facts[dtype] = {{"tensors", sum.tensors}, {"weights", sum.elements}, {"bytes", sum.bytes}};
  return facts;
}

Json describe_gguf(const std::string& path) {
  const io::GgufFile file(path);
  Json facts = {{"kind", io::gguf_kind(file)}, {"path", path}};
  for (const auto& [key, value] : file.metadata()) {
    if (key.starts_with("tokenizer.")) continue;
    std::visit(
        [&facts, &key = key](const auto& v) {
          if constexpr (requires {
                          v.data();
                          v.front();
                        } &&
                        !std::is_same_v<std::decay_t<decltype(v)>, std::string>) {
            facts[key] = fmt::format("{} values", v.size());
          } else {
            facts[key] = v;
          }
        },
        value);
  }
  facts["tokenizer"] = file.text_or("tokenizer.ggml.model", "none");
  const auto architecture = description_by([&] { return model::read_architecture(file); }, facts);
  facts["tensors"] = tensor_facts(file.tensors());
  facts["footprint"] = stored_footprint_json(file.tensors(), architecture);
  return facts;
}

// Every packing has tensors of its own beside weights and biases. Without any, the directory need
// not be opened a second time.
bool may_be_packed(const std::vector<io::TensorView>& tensors) {
  return std::ranges::any_of(tensors, [](const io::TensorView& tensor) {
    return !tensor.name.ends_with(".weight") && !tensor.name.ends_with(".bias");
  });
}

Json describe_model_directory(const std::string& path) {
  Json facts = {{"kind", "Hugging Face model"}, {"path", path}};
  const std::string config = (fs::path(path) / "config.json").string();
  facts["config"] = io::ordered_json_from_text(io::read_bytes(config));
  const auto tensors = io::read_weight_directory(path).tensors;
  std::unique_ptr<model::WeightSource> source;
  const auto architecture = description_by(
      [&] {
        const nlohmann::json document = io::read_json_file(config);
        const model::Architecture read = model::read_architecture(io::JsonNode(document, config));
        if (may_be_packed(tensors)) source = model::open_weights(path);
        return read;
      },
      facts);
  facts["tensors"] = tensor_facts(tensors);
  if (const Json errors = quantization_errors(path); !errors.is_null())
    facts["quantization_errors"] = errors;
  facts["footprint"] = stored_footprint_json(tensors, architecture, source.get());
  return facts;
}

Json run_footprint(const std::string& run_directory) {
  // What lies there then is another run's.
  const bool has_begun = !recipes::is_being_replaced(run_directory);
  recipes::Recipe recipe = recipes::read_run_recipe(run_directory);
  if (has_begun) recipe = recipes::with_saved_base(std::move(recipe));
  const auto path = model::find_model(recipe.model.path);
  if (!path) return nullptr;
  const auto source = model::open_weights(*path);
  auto rows = model::kept_footprint(*source, tensors_of(*path), recipe.model, recipe.quantization);
  const std::string adapter = (fs::path(run_directory) / "adapter").string();
  if (has_begun && fs::exists(adapter)) add_adapter(adapter, rows);
  return footprint_json(rows);
}

std::string footprint_text(const Json& footprint) {
  const auto text_of = [](const Json& row, const char* key) {
    return shown_text(row.at(key).get<std::string>());
  };
  std::vector<Line> lines = {{"module", "count", "parameters", "format", "bytes", "bits a weight"}};
  for (const Json& row : footprint.at("rows"))
    lines.push_back(line_of(text_of(row, "module"), text_of(row, "format"), row));
  for (const auto& [format, sum] : footprint.at("formats").items())
    lines.push_back(line_of("all", shown_text(format), sum));
  lines.push_back(line_of("total", "", footprint.at("total")));
  size_t module_width = 14, format_width = 13;
  for (const Line& line : lines) {
    module_width = std::max(module_width, line.module.size());
    format_width = std::max(format_width, line.format.size());
  }
  std::string text;
  for (const Line& line : lines)
    text +=
        fmt::format("  {:<{}} {:>6} {:>17} {:<{}} {:>17} {:>13}\n", line.module, module_width,
                    line.count, line.parameters, line.format, format_width, line.bytes, line.bits);
  return text;
}

}  // namespace qlora::cli

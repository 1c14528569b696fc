#include "cli/inspect_model.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "io/gguf.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "io/safetensors.h"
#include "model/footprint.h"
#include "model/hub_cache.h"
#include "model/load.h"
#include "recipes/base_model.h"
#include "recipes/run_directory.h"

namespace qlora::cli {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using model::FootprintRow;

Json footprint_json(const std::vector<FootprintRow>& rows) {
  Json table = {{"rows", Json::array()}, {"formats", Json::object()}};
  FootprintRow total;
  std::map<std::string, FootprintRow> formats;
  for (const FootprintRow& row : rows) {
    table["rows"].push_back({{"module", row.kind},
                             {"count", row.count},
                             {"parameters", row.parameters},
                             {"format", row.format},
                             {"bytes", row.bytes}});
    for (FootprintRow* sum : {&total, &formats[row.format]}) {
      sum->count += row.count;
      sum->parameters += row.parameters;
      sum->bytes += row.bytes;
    }
  }
  const auto facts = [](const FootprintRow& sum) {
    return Json{{"count", sum.count}, {"parameters", sum.parameters}, {"bytes", sum.bytes}};
  };
  for (const auto& [format, sum] : formats) table["formats"][format] = facts(sum);
  table["total"] = facts(total);
  return table;
}

bool is_gguf(const std::string& path) { return path.ends_with(".gguf"); }

std::vector<io::TensorView> tensors_of(const std::string& path) {
  return is_gguf(path) ? io::GgufFile(path).tensors()
                       : io::read_safetensors_directory(path).tensors;
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

std::string line(const std::string& module, const std::string& format, const Json& facts) {
  const auto number = [&facts](const char* key) { return facts.at(key).get<int64_t>(); };
  return fmt::format("  {:<14} {:>6} {:>17} {:<13} {:>17}\n", module, number("count"),
                     grouped(number("parameters")), format, grouped(number("bytes")));
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
  Json facts = {{"kind", "GGUF model"}, {"path", path}};
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
  facts["tensors"] = tensor_facts(file.tensors());
  facts["footprint"] = footprint_json(model::stored_footprint(file.tensors()));
  return facts;
}

Json describe_model_directory(const std::string& path) {
  Json facts = {{"kind", "Hugging Face model"}, {"path", path}};
  facts["config"] =
      io::ordered_json_from_text(io::read_bytes((fs::path(path) / "config.json").string()));
  const auto tensors = io::read_safetensors_directory(path).tensors;
  facts["tensors"] = tensor_facts(tensors);
  facts["footprint"] = footprint_json(model::stored_footprint(tensors));
  return facts;
}

Json run_footprint(const std::string& run_directory) {
  const recipes::Recipe recipe = recipes::with_saved_base(recipes::read_run_recipe(run_directory));
  const auto path = model::find_model(recipe.model.path);
  if (!path) return nullptr;
  const auto source = model::open_weights(*path);
  auto rows = model::kept_footprint(tensors_of(*path), recipe.quantization,
                                    model::resolved_dtype(recipe.model.dtype, *source),
                                    source->architecture().tied_embeddings);
  const std::string adapter = (fs::path(run_directory) / "adapter").string();
  if (fs::exists(adapter)) add_adapter(adapter, rows);
  return footprint_json(rows);
}

std::string footprint_text(const Json& footprint) {
  std::string text = fmt::format("  {:<14} {:>6} {:>17} {:<13} {:>17}\n", "module", "count",
                                 "parameters", "format", "bytes");
  for (const Json& row : footprint.at("rows"))
    text += line(row.at("module").get<std::string>(), row.at("format").get<std::string>(), row);
  for (const auto& [format, sum] : footprint.at("formats").items())
    text += line("all", format, sum);
  return text + line("total", "", footprint.at("total"));
}

}  // namespace qlora::cli

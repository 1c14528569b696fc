#include "model/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/byte_size.h"
#include "base/error.h"

namespace qlora::model {
namespace {
using quant::Home;

// "cuda" and a bare number, as accelerate writes GPUs, with their index.
std::string device_name(const std::string& name) {
  if (name == "cuda") return "cuda:0";
  const bool is_number =
      !name.empty() && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
  return is_number ? "cuda:" + name : name;
}

std::string name_of(c10::Device device) {
  return device.is_cuda() ? fmt::format("cuda:{}", std::max<int>(device.index(), 0)) : "cpu";
}

Home home_of(const std::string& key, const std::string& place, c10::Device device) {
  if (place == "disk") return Home::kDisk;
  if (place == "cpu") return device.is_cuda() ? Home::kHost : Home::kDevice;
  // Of a run that began on a GPU, on a CPU later: what lay on the device does so again.
  if (!device.is_cuda() || device_name(place) == name_of(device)) return Home::kDevice;
  fail<ConfigError>(
      "model.device_map{}: the device is {} (train.device), found {}; write that, "
      "cpu or disk",
      key.empty() ? "" : "." + key, name_of(device), place);
}

bool holds(const std::string& module, const std::string& part) {
  return module.empty() || part == module || part.starts_with(module + ".");
}

// The paths of the blocks, "model.layers.3".
std::vector<std::string> block_paths(const Architecture& a) {
  std::vector<std::string> paths;
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    paths.push_back(
        fmt::format("{}{}", a.stack_of(layer).prefix.hugging_face, a.index_in_stack(layer)));
  return paths;
}

std::set<std::string> modules_beside_blocks(const Architecture& a) {
  std::set<std::string> modules = {a.embedding.names.hugging_face, a.head.names.hugging_face};
  if (a.embedding.positions.present()) modules.insert(a.embedding.positions.names.hugging_face);
  for (const NormSpec* norm : {&a.embedding.norm, &a.encoder.final_norm, &a.decoder.final_norm})
    if (norm->present()) modules.insert(norm->names.hugging_face);
  for (const LinearSpec* linear : {&a.embedding.projection, &a.head_projection})
    if (linear->present()) modules.insert(linear->names.hugging_face);
  return modules;
}

// A key that holds no block: a module beside them, which stays, or a mistake.
void require_stays(const std::string& key, Home home, const std::vector<std::string>& blocks,
                   const std::set<std::string>& others) {
  const bool within = std::ranges::any_of(
      blocks, [&](const std::string& block) { return key != block && holds(block, key); });
  if (within)
    fail<ConfigError>(
        "model.device_map.{}: a block lies in one place as a whole; name the block, such as {}",
        key, blocks.front());
  const bool beside =
      std::ranges::any_of(others, [&](const std::string& module) { return holds(key, module); });
  if (!beside)
    fail<ConfigError>(
        "model.device_map.{}: the model has no such module; its blocks are {} to {}, and '' is all "
        "of it",
        key, blocks.front(), blocks.back());
  if (home != Home::kDevice)
    fail<ConfigError>(
        "model.device_map.{}: embeddings, norms and head stay on train.device; blocks alone, {} to "
        "{}, may lie elsewhere",
        key, blocks.front(), blocks.back());
}

}  // namespace

int64_t Placement::count(Home home) const { return std::ranges::count(layers, home); }

std::string Placement::to_text() const {
  if (!elsewhere()) return "";
  std::string text =
      fmt::format("{} of {} blocks on the device", count(Home::kDevice), layers.size());
  if (const int64_t host = count(Home::kHost); host > 0)
    text += fmt::format(", {} in host memory", host);
  if (const int64_t disk = count(Home::kDisk); disk > 0) text += fmt::format(", {} on disk", disk);
  return limit.empty() ? text : text + ", for a limit of " + limit;
}

bool is_automatic(const ModelOptions& options) {
  const auto whole = options.device_map.find("");
  return whole != options.device_map.end() && whole->second == "auto";
}

Placement placement_of(const ModelOptions& options, const Architecture& architecture,
                       c10::Device device) {
  if (options.device_map.empty()) return {};
  const std::vector<std::string> blocks = block_paths(architecture);
  const std::set<std::string> others = modules_beside_blocks(architecture);
  std::map<std::string, Home> homes;
  for (const auto& [key, place] : options.device_map) {
    homes[key] = home_of(key, place, device);
    if (std::ranges::none_of(blocks, [&](const std::string& b) { return holds(key, b); }))
      require_stays(key, homes[key], blocks, others);
  }
  Placement placement;
  for (const std::string& block : blocks) {
    Home home = Home::kDevice;
    size_t longest = 0;  // of the keys that hold the block
    for (const auto& [key, of_key] : homes)
      if (holds(key, block) && key.size() >= longest) {
        longest = key.size();
        home = of_key;
      }
    placement.layers.push_back(home);
  }
  return placement;
}

std::optional<int64_t> memory_limit(const ModelOptions& options, c10::Device device) {
  for (const auto& [key, size] : options.max_memory) {
    if (device_name(key) != name_of(device)) continue;
    return byte_size(size);
  }
  return std::nullopt;
}

}  // namespace qlora::model

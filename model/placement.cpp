#include "model/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

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
  if (place == "ranks") return Home::kRanks;
  if (place == "cpu") return device.is_cuda() ? Home::kHost : Home::kDevice;
  // Of a run that began on a GPU, on a CPU later: what lay on the device does so again.
  if (!device.is_cuda() || device_name(place) == name_of(device)) return Home::kDevice;
  fail<ConfigError>(
      "model.device_map{}: the device is {} (train.device), found {}; write that, "
      "cpu, disk or ranks",
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

std::set<std::string> modules_that_stay(const Architecture& a) {
  std::set<std::string> modules;
  if (a.embedding.positions.present()) modules.insert(a.embedding.positions.names.hugging_face);
  for (const NormSpec* norm : {&a.embedding.norm, &a.encoder.final_norm, &a.decoder.final_norm})
    if (norm->present()) modules.insert(norm->names.hugging_face);
  for (const LinearSpec* linear : {&a.embedding.projection, &a.head_projection})
    if (linear->present()) modules.insert(linear->names.hugging_face);
  return modules;
}

// What a model.device_map says of one model.
class DeviceMap {
 public:
  DeviceMap(const ModelOptions& options, const Architecture& architecture, c10::Device device)
      : options_(options), a_(architecture), device_(device), blocks_(block_paths(architecture)) {}

  Placement placement(bool float32_on_cpu) const {
    for (const auto& [key, place] : options_.device_map) require_known(key, place);
    Placement placement;
    for (const std::string& block : blocks_) {
      const auto* key = longest_key_of(block);
      placement.layers.push_back(key ? home_of(key->first, key->second, device_) : Home::kDevice);
      if (float32_on_cpu)
        placement.float32.push_back(key && (key->second == "cpu" || key->second == "disk"));
    }
    place_outer(placement);
    return placement;
  }

 private:
  using Entry = std::pair<const std::string, std::string>;

  // The longest key that holds the module; null: none does.
  const Entry* longest_key_of(const std::string& module) const {
    const Entry* longest = nullptr;
    for (const Entry& entry : options_.device_map)
      if (holds(entry.first, module) &&
          (longest == nullptr || entry.first.size() >= longest->first.size()))
        longest = &entry;
    return longest;
  }
  bool holds_a_block(const std::string& key) const {
    return std::ranges::any_of(blocks_, [&](const std::string& b) { return holds(key, b); });
  }
  // Where the map has embedding or head by a name that is not the blocks' too.
  std::optional<Home> home_of_outer(const std::string& module) const {
    const Entry* key = longest_key_of(module);
    if (key == nullptr || holds_a_block(key->first)) return std::nullopt;
    return home_of(key->first, key->second, device_);
  }

  void require_known(const std::string& key, const std::string& place) const;
  void place_outer(Placement& placement) const;

  const ModelOptions& options_;
  const Architecture& a_;
  c10::Device device_;
  std::vector<std::string> blocks_;
};

// A key that holds no block: embedding or head, a module beside them, which stays, or a mistake.
void DeviceMap::require_known(const std::string& key, const std::string& place) const {
  const Home home = home_of(key, place, device_);
  if (holds_a_block(key)) return;
  const bool within = std::ranges::any_of(
      blocks_, [&](const std::string& block) { return key != block && holds(block, key); });
  if (within)
    fail<ConfigError>(
        "model.device_map.{}: a block lies in one place as a whole; name the block, such as {}",
        key, blocks_.front());
  const std::string &embedding = a_.embedding.names.hugging_face,
                    &head = a_.head.names.hugging_face;
  if (holds(key, embedding) || holds(key, head)) return;
  const bool beside = std::ranges::any_of(
      modules_that_stay(a_), [&](const std::string& module) { return holds(key, module); });
  if (!beside)
    fail<ConfigError>(
        "model.device_map.{}: the model has no such module; its blocks are {} to {}, embedding and "
        "head are {} and {}, and '' is all of it",
        key, blocks_.front(), blocks_.back(), embedding, head);
  if (home != Home::kDevice)
    fail<ConfigError>(
        "model.device_map.{}: norms, learned positions and projections stay on train.device, for "
        "they are small; blocks, {} to {}, {} and {} may lie elsewhere",
        key, blocks_.front(), blocks_.back(), embedding, head);
}

void DeviceMap::place_outer(Placement& placement) const {
  const std::string &embedding = a_.embedding.names.hugging_face,
                    &head = a_.head.names.hugging_face;
  std::optional<Home> first = home_of_outer(embedding), last = home_of_outer(head);
  if (a_.tied_embeddings) {
    if (first && last && *first != *last)
      fail<ConfigError>(
          "model.device_map.{}: it is one matrix with {} in this model; give both the same place, "
          "or name one of them",
          head, embedding);
    first = last = first ? first : last;
  }
  placement.embedding = first.value_or(Home::kDevice);
  placement.head = last.value_or(Home::kDevice);
  for (const auto& [home, module] :
       {std::pair(placement.embedding, &embedding), std::pair(placement.head, &head)})
    if (home == Home::kRanks)
      fail<ConfigError>(
          "model.device_map.{}: every rank has embedding and head whole; give ranks the blocks, {} "
          "to {}, or all of the model (model.device_map: ranks)",
          *module, blocks_.front(), blocks_.back());
}

// ", the head in host memory"
std::string place_text(const char* module, Home home) {
  if (home == Home::kDevice) return "";
  return fmt::format(", the {} {}", module, home == Home::kHost ? "in host memory" : "on disk");
}

}  // namespace

int64_t Placement::count(Home home) const { return std::ranges::count(layers, home); }

bool Placement::elsewhere() const {
  return count(Home::kHost) + count(Home::kDisk) + count(Home::kRanks) > 0 ||
         embedding != Home::kDevice || head != Home::kDevice;
}

bool Placement::on_disk() const {
  return count(Home::kDisk) > 0 || embedding == Home::kDisk || head == Home::kDisk;
}

Placement Placement::for_one_rank() const {
  Placement alone = *this;
  std::ranges::replace(alone.layers, Home::kRanks, Home::kDevice);
  return alone;
}

std::string Placement::to_text() const {
  const auto wide = std::ranges::count(float32, true);
  if (!elsewhere() && wide == 0) return "";
  std::string text =
      fmt::format("{} of {} blocks on the device", count(Home::kDevice), layers.size());
  if (const int64_t host = count(Home::kHost); host > 0)
    text += fmt::format(", {} in host memory", host);
  if (const int64_t disk = count(Home::kDisk); disk > 0) text += fmt::format(", {} on disk", disk);
  if (const int64_t ranks = count(Home::kRanks); ranks > 0)
    text += fmt::format(", {} shared between the ranks", ranks);
  if (!limit.empty()) text += ", for a limit of " + limit;
  text += place_text("embedding", embedding) + place_text("head", head);
  return wide == 0 ? text : text + fmt::format(", {} blocks in float32", wide);
}

bool is_automatic(const ModelOptions& options) {
  const auto whole = options.device_map.find("");
  return whole != options.device_map.end() && whole->second == "auto";
}

bool shares_blocks(const ModelOptions& options) {
  return std::ranges::any_of(options.device_map,
                             [](const auto& entry) { return entry.second == "ranks"; });
}

Placement placement_of(const ModelOptions& options, const Architecture& architecture,
                       c10::Device device, bool float32_on_cpu) {
  if (options.device_map.empty()) return {};
  return DeviceMap(options, architecture, device).placement(float32_on_cpu);
}

void require_own_devices(const ModelOptions& options, c10::Device device, int ranks_here) {
  const std::string own = name_of(device);
  const auto is_other_gpu = [&](const std::string& name) {
    return device_name(name).starts_with("cuda") && device_name(name) != own;
  };
  for (const auto& [module, place] : options.device_map)
    if (is_other_gpu(place))
      fail<ConfigError>(
          "model.device_map{}: the run is on {} (train.device), found {}; write cpu, disk, "
          "ranks{}, "
          "leave it out, or set train.device to {}",
          module.empty() ? "" : "." + module, own, place, device.is_cuda() ? ", " + own : "",
          device_name(place));
  if (device.is_cuda() &&
      (ranks_here > 1 || memory_limit(options, device) || options.max_memory.contains("cpu")))
    return;
  for (const auto& [name, size] : options.max_memory)
    if (is_other_gpu(name))
      fail<ConfigError>(
          "model.max_memory.{}: the run is on {} (train.device), which takes nothing of that "
          "device; write {{{}: {}}}, leave it out, or set train.device to {}",
          name, own, own, size, device_name(name));
}

std::vector<std::string> float32_modules(const Placement& placement,
                                         const Architecture& architecture) {
  std::vector<std::string> modules;
  const std::vector<std::string> paths = block_paths(architecture);
  for (size_t layer = 0; layer < placement.float32.size(); ++layer)
    if (placement.float32[layer]) modules.push_back(paths[layer]);
  return modules;
}

std::optional<int64_t> memory_limit(const ModelOptions& options, c10::Device device) {
  for (const auto& [key, size] : options.max_memory) {
    if (device_name(key) != name_of(device)) continue;
    return byte_size(size);
  }
  return std::nullopt;
}

}  // namespace qlora::model

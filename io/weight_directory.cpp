#include "io/weight_directory.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/warn_once.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/torch_file/torch_file.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

constexpr const char* kSafetensors = ".safetensors";
constexpr const char* kIndex = ".index.json";
constexpr const char* kHqq = "qmodel.pt";
constexpr const char* kStandardNames[] = {"model.safetensors", "pytorch_model.bin"};

bool is_there(const fs::path& path) {
  std::error_code unreadable;
  return fs::exists(path, unreadable);
}

TensorFile read_file(const std::string& path) {
  return path.ends_with(kSafetensors) ? read_safetensors(path) : read_torch_file(path);
}

// The value as the name of a file of the directory; one that leads elsewhere is refused.
std::string plain_file_name(const JsonNode& node) {
  const std::string name = node.as_string();
  if (name.empty() || name == "." || name == ".." ||
      name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
    node.reject("a plain file name");
  }
  return name;
}

// What an index says: the shard of each tensor.
using ShardOf = std::map<std::string, std::string>;

// A tensor that its shard holds without the index saying so. transformers reads whole shards in the
// order of their names, so one that the index does not know is taken, and of two the latter.
void take_unlisted(const std::string& index, const std::string& shard, TensorView tensor,
                   TensorFile& result) {
  if (const auto known = result.index.find(tensor.name); known != result.index.end()) {
    TensorView& other = result.tensors[known->second];
    if (same_bytes(other, tensor)) return;
    log::warning_once(
        "{}: {} and {} hold tensors {} that differ; that of the latter is used, as transformers "
        "does, whatever the index says",
        index, std::min(other.file, shard), std::max(other.file, shard), tensor.name);
    if (other.file < shard) other = std::move(tensor);
    return;
  }
  log::warning_once("{} does not name the tensor {} of {}; it is used, as transformers does", index,
                    tensor.name, shard);
  result.index.emplace(tensor.name, result.tensors.size());
  result.tensors.push_back(std::move(tensor));
}

void require_listed(const std::string& path, const std::string& index, const ShardOf& shard_of,
                    const TensorFile& shard) {
  for (const auto& [name, its_path] : shard_of)
    if (its_path == path && !shard.find(name))
      fail<FormatError>("{}: there must be a tensor {}, as {} says", path, name, index);
}

// All shards' tensors, first those that the index places in them, in the order of their bytes.
TensorFile read_shards(const std::string& index, const ShardOf& shard_of) {
  std::set<std::string> paths;
  for (const auto& [name, path] : shard_of) paths.insert(path);
  TensorFile result;
  std::vector<std::pair<std::string, TensorView>> unlisted;
  for (const std::string& path : paths) {
    if (!is_there(path)) {
      fail<FormatError>("{}: the shard is missing, which {} names; download it again", path, index);
    }
    TensorFile shard = read_file(path);
    require_listed(path, index, shard_of, shard);
    for (TensorView& tensor : shard.tensors) {
      const auto listed = shard_of.find(tensor.name);
      if (listed == shard_of.end() || listed->second != path)
        unlisted.emplace_back(path, std::move(tensor));
      else
        result.tensors.push_back(std::move(tensor));
    }
    result.metadata.insert(shard.metadata.begin(), shard.metadata.end());
  }
  result.index_tensors();
  for (auto& [path, tensor] : unlisted) take_unlisted(index, path, std::move(tensor), result);
  return result;
}

ShardOf read_index(const std::string& index) {
  const nlohmann::json document = read_json_file(index);
  const JsonNode map = JsonNode(document, index).at("weight_map");
  if (!map.value().is_object()) map.reject("an object");
  const fs::path directory = fs::path(index).parent_path();
  ShardOf shard_of;
  for (const auto& [name, ignored] : map.value().items())
    shard_of[name] = (directory / plain_file_name(map.at(name))).string();
  return shard_of;
}

// Names that AutoGPTQ may have given the weights, without their endings.
std::vector<std::string> gptq_names(const JsonNode& config) {
  if (const auto name = config.find("model_file_base_name")) return {plain_file_name(*name)};
  const auto bits = config.find("bits"), group = config.find("group_size");
  if (!bits || !group) return {};
  return {fmt::format("gptq_model-{}bit-{}g", bits->as_integer(1, 64),
                      group->as_integer(-1, int64_t{1} << 31))};
}

std::vector<std::string> names_ending(const std::string& directory, std::string_view end) {
  std::vector<std::string> names;
  std::error_code unreadable;
  for (const auto& entry : fs::directory_iterator(directory, unreadable)) {
    std::string name = entry.path().filename().string();
    if (name.ends_with(end)) names.push_back(std::move(name));
  }
  std::ranges::sort(names);
  return names;
}

bool is_shard(const std::string& name) { return name.find("-of-") != std::string::npos; }

// What lies in a directory without weights, as the end of a sentence.
std::string what_lies_there(const std::string& directory) {
  const auto has = [&](const char* name) { return is_there(fs::path(directory) / name); };
  if (has("adapter_config.json"))
    return "; it is an adapter: give its base model, and the directory with --adapter or "
           "lora.from_adapter";
  for (const char* name :
       {"consolidated.00.pth", "consolidated.pth", "tf_model.h5", "flax_model.msgpack"})
    if (has(name))
      return fmt::format(
          "; its weights are in {}, which this program does not read. Load it with transformers "
          "and save it again: save_pretrained writes safetensors",
          name);
  for (const std::string& name : names_ending(directory, ".gguf"))
    return fmt::format("; there is a {}, give that file", (fs::path(directory) / name).string());
  for (const auto& [end, standard] :
       {std::pair(kSafetensors, kStandardNames[0]), std::pair(".bin", kStandardNames[1])})
    for (const std::string& name : names_ending(directory, end))
      if (is_shard(name))
        return fmt::format(
            "; there is {}, a shard without the index, which says where each tensor lies; download "
            "{}{} too",
            name, standard, kIndex);
  for (const char* end : {".part", ".partial", ".crdownload", ".incomplete", ".aria2"})
    for (const std::string& name : names_ending(directory, end))
      return fmt::format("; there is {}, a download that did not end: go on with it", name);
  for (const std::string& name : names_ending(directory, kSafetensors))
    return fmt::format("; there is {}: rename it to {} if it is the whole model", name,
                       kStandardNames[0]);
  for (const char* end : {".onnx", ".ckpt", ".npz", ".pth", ".h5", ".msgpack", ".mlmodel", ".pte"})
    for (const std::string& name : names_ending(directory, end))
      return fmt::format(
          "; there is {}, and weights in files of that kind are not read: take the model's "
          "safetensors",
          name);
  return "; there are no weights";
}

// The file, or index, of weights that AutoGPTQ saved under a name of their own; empty: none.
std::string gptq_file(const std::string& directory) {
  const std::string path = (fs::path(directory) / "quantize_config.json").string();
  if (!is_there(path)) return "";
  const nlohmann::json document = read_json_file(path);
  for (const std::string& name : gptq_names(JsonNode(document, path)))
    for (const char* end : {kSafetensors, ".bin", ".pt"})
      for (const char* index : {"", kIndex})
        if (is_there(fs::path(directory) / (name + end + index))) return name + end + index;
  const std::vector<std::string> all = names_ending(directory, kSafetensors);
  return all.size() == 1 && !is_shard(all.front()) ? all.front() : "";
}

// The first file or index of weights in the directory; empty: there is none.
std::string first_file(const std::string& directory) {
  const auto has = [&](const std::string& name) { return is_there(fs::path(directory) / name); };
  for (const std::string name : kStandardNames) {
    const std::string index = name + kIndex;
    if (has(name) && has(index))
      log::warning_once(
          "{} is read, as transformers does; {} and the shards that it names are left aside",
          (fs::path(directory) / name).string(), (fs::path(directory) / index).string());
    if (has(name)) return name;
    if (has(index)) return index;
  }
  if (std::string name = gptq_file(directory); !name.empty()) return name;
  return has(kHqq) ? kHqq : "";
}

std::string required_file(const std::string& directory) {
  std::string name = first_file(directory);
  if (name.empty())
    fail<FormatError>(
        "{} must hold model.safetensors, pytorch_model.bin, or the index of either "
        "(model.safetensors.index.json){}",
        directory, what_lies_there(directory));
  return name;
}

// Paths of the files of torch.save that the name or index stands for, as far as they are there.
std::set<std::string> torch_files(const std::string& directory) {
  const std::string name = kStandardNames[1];
  const fs::path file = fs::path(directory) / name, index = file.string() + kIndex;
  std::set<std::string> paths;
  if (is_there(file))
    paths.insert(file.string());
  else if (is_there(index))
    for (const auto& [tensor, path] : read_index(index.string()))
      if (is_there(path)) paths.insert(path);
  return paths;
}

// Of masks and rotations that older versions of transformers saved: nobody reads them.
constexpr std::string_view kBuffers[] = {".rotary_emb.inv_freq", ".attn.bias", ".attention.bias",
                                         ".masked_bias"};

bool is_weight(const TensorView& tensor) {
  constexpr DType kFloats[] = {DType::kF16, DType::kBF16, DType::kF32, DType::kF64};
  return std::ranges::find(kFloats, tensor.dtype) != std::end(kFloats) &&
         std::ranges::none_of(kBuffers, [&](auto end) { return tensor.name.ends_with(end); });
}

// The same weights may have been saved in two dtypes, whose bytes cannot be compared.
bool can_be_compared(const TensorView& a, const TensorView& b) {
  return is_weight(a) && a.dtype == b.dtype && a.shape == b.shape &&
         a.bytes.size() == b.bytes.size();
}

// A few pages of each, at the same places: the rest of two models' tensors is never the same.
bool begin_and_end_alike(const TensorView& a, const TensorView& b) {
  constexpr size_t kLook = 4096;
  const size_t size = a.bytes.size(), look = std::min(size, kLook);
  for (const size_t at : {size_t{0}, (size - look) / 2, size - look})
    if (!std::ranges::equal(a.bytes.subspan(at, look), b.bytes.subspan(at, look))) return false;
  return true;
}

// Many repositories have a model in both kinds of files; it need not be the same model.
void warn_of_other_torch_files(const std::string& directory, const std::string& name,
                               const TensorFile& used) {
  if (!name.starts_with(kStandardNames[0])) return;
  try {
    for (const std::string& path : torch_files(directory)) {
      for (const TensorView& other : read_torch_file(path).tensors) {
        const TensorView* tensor = used.find(other.name);
        if (!tensor || !can_be_compared(*tensor, other) || begin_and_end_alike(*tensor, other))
          continue;
        log::warning_once(
            "{} and {} hold other weights, {} for one; those of the former are used, as "
            "transformers does",
            (fs::path(directory) / name).string(), path, other.name);
        return;
      }
    }
  } catch (const std::runtime_error&) {
    // What is not read need not be readable.
  }
}

}  // namespace

std::string weights_file(const std::string& directory) { return first_file(directory); }

void require_weights(const std::string& directory) { required_file(directory); }

TensorFile read_weight_directory(const std::string& directory) {
  const std::string name = required_file(directory);
  if (is_there(fs::path(directory) / "adapter_config.json"))
    log::warning_once(
        "{}: adapter_config.json lies beside the weights, and transformers with PEFT would load "
        "that adapter with them; here it is used only where --adapter or lora.from_adapter gives "
        "it",
        directory);
  const std::string path = (fs::path(directory) / name).string();
  TensorFile file = name.ends_with(kIndex) ? read_shards(path, read_index(path)) : read_file(path);
  warn_of_other_torch_files(directory, name, file);
  return file;
}

TensorFile read_weights(const std::string& path) {
  std::error_code unreadable;
  return fs::is_directory(path, unreadable) ? read_weight_directory(path) : read_file(path);
}

bool holds_weights(const std::string& directory) {
  const auto is_part = [](const std::string& name) { return name.starts_with("pytorch_model"); };
  return !first_file(directory).empty() || !names_ending(directory, kSafetensors).empty() ||
         std::ranges::any_of(names_ending(directory, ".bin"), is_part);
}

}  // namespace qlora::io

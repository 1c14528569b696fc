#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "io/json.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kLongestHeader = 100 << 20;  // as the reference reader
constexpr size_t kMostDimensions = 16;

DType dtype_named(const JsonNode& node) {
  const std::string name = node.as_string();
  for (int i = 0; i <= static_cast<int>(DType::kF64); ++i)
    if (dtype_name(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  node.reject("a known element type (BF16, F16, F32, U8, ...)");
}

// Bytes of a tensor; FormatError where the product leaves what a file can hold.
uint64_t byte_count(const TensorView& tensor, const JsonNode& shape, uint64_t most) {
  uint64_t count = static_cast<uint64_t>(bytes_per_block(tensor.dtype));
  for (const int64_t size : tensor.shape) {
    if (size == 0) return 0;
    if (count > most / static_cast<uint64_t>(size)) shape.reject("no larger than the file");
    count *= static_cast<uint64_t>(size);
  }
  return count;
}

TensorView read_entry(const std::string& name, const JsonNode& entry,
                      const std::shared_ptr<const MappedFile>& file,
                      std::span<const std::byte> data) {
  TensorView tensor;
  tensor.name = name;
  tensor.file = file->path();
  tensor.owner = file;
  tensor.dtype = dtype_named(entry.at("dtype"));
  const JsonNode shape = entry.at("shape");
  for (const JsonNode& size : shape.elements())
    tensor.shape.push_back(size.as_integer(0, int64_t{1} << 48));
  if (tensor.shape.size() > kMostDimensions) shape.reject("of at most 16 dimensions");
  const JsonNode offsets = entry.at("data_offsets");
  const std::vector<JsonNode> ends = offsets.elements();
  if (ends.size() != 2) offsets.reject("[begin, end]");
  const auto size = static_cast<int64_t>(data.size());
  const int64_t begin = ends[0].as_integer(0, size);
  const int64_t end = ends[1].as_integer(begin, size);
  const uint64_t bytes = byte_count(tensor, shape, data.size());
  if (bytes != static_cast<uint64_t>(end - begin)) {
    offsets.reject(fmt::format("{} bytes apart, as dtype and shape say", bytes));
  }
  tensor.bytes = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(bytes));
  return tensor;
}

// The format knows neither gaps nor overlaps: each byte of the data belongs to one tensor.
void require_seamless(const TensorFile& file, std::span<const std::byte> data,
                      const std::string& path) {
  const std::byte* next = data.data();
  for (const TensorView& tensor : file.tensors) {
    if (tensor.bytes.data() != next) {
      fail<FormatError>(
          "{}: tensor {} must begin where the one before it ends, at byte {}, found {}", path,
          tensor.name, next - data.data(), tensor.bytes.data() - data.data());
    }
    next = tensor.bytes.data() + tensor.bytes.size();
  }
  if (next != data.data() + data.size()) {
    fail<FormatError>("{}: {} bytes at the end belong to no tensor", path,
                      data.data() + data.size() - next);
  }
}

// A file beside the index; a path that leads elsewhere is refused.
std::string shard_path(const std::string& directory, const JsonNode& node) {
  const std::string name = node.as_string();
  if (fs::path(name).filename() != name || name.empty()) node.reject("a plain file name");
  return (fs::path(directory) / name).string();
}

}  // namespace

const TensorView* TensorFile::find(const std::string& name) const {
  const auto found = std::ranges::find(tensors, name, &TensorView::name);
  return found == tensors.end() ? nullptr : &*found;
}

TensorFile read_safetensors(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  uint64_t length = 0;
  if (bytes.size() < kLengthBytes) {
    fail<FormatError>("{} must be a safetensors file: {} bytes are too few", path, bytes.size());
  }
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kLongestHeader || length > bytes.size() - kLengthBytes) {
    fail<FormatError>(
        "{}: the header must fit into the file, but is said to take {} of {} bytes; the file is "
        "cut "
        "off or no safetensors file",
        path, length, bytes.size());
  }
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  const nlohmann::json document = parse_json({text, length}, path + " (header)");
  const JsonNode header(document, path + " (header)");
  if (!document.is_object()) header.reject("an object");
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + length);
  TensorFile result;
  for (const auto& [name, ignored] : document.items()) {
    const JsonNode entry = header.at(name);
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.value().items())
        result.metadata[key] = JsonNode(value, entry.place() + "." + key).as_string();
    } else {
      result.tensors.push_back(read_entry(name, entry, file, data));
    }
  }
  std::ranges::sort(result.tensors, [](const TensorView& a, const TensorView& b) {
    const auto key = [](const TensorView& t) {
      return std::tuple(t.bytes.data(), t.bytes.size(), std::cref(t.name).get());
    };
    return key(a) < key(b);
  });
  require_seamless(result, data, path);
  return result;
}

TensorFile read_safetensors_directory(const std::string& directory) {
  const fs::path index = fs::path(directory) / "model.safetensors.index.json";
  const fs::path single = fs::path(directory) / "model.safetensors";
  if (!fs::exists(index)) {
    if (fs::exists(single)) return read_safetensors(single.string());
    fail<FormatError>("{} must hold model.safetensors or model.safetensors.index.json", directory);
  }
  const nlohmann::json document = read_json_file(index.string());
  const JsonNode map = JsonNode(document, index.string()).at("weight_map");
  if (!map.value().is_object()) map.reject("an object");
  std::map<std::string, TensorFile> shards;
  TensorFile result;
  for (const auto& [name, ignored] : map.value().items()) {
    const std::string path = shard_path(directory, map.at(name));
    auto shard = shards.find(path);
    if (shard == shards.end()) {
      if (!fs::exists(path)) {
        fail<FormatError>("{}: the shard is missing, which {} names; download it again", path,
                          index.string());
      }
      shard = shards.emplace(path, read_safetensors(path)).first;
    }
    const TensorView* tensor = shard->second.find(name);
    if (!tensor) fail<FormatError>("{}: there must be a tensor {}, as the index says", path, name);
    result.tensors.push_back(*tensor);
    result.metadata.insert(shard->second.metadata.begin(), shard->second.metadata.end());
  }
  return result;
}

struct SafetensorsWriter::State {
  OutputFile file;
  std::vector<TensorHeader> tensors;
  size_t next = 0;

  static int64_t bytes_of(const TensorHeader& tensor) {
    int64_t bytes = bytes_per_block(tensor.dtype);
    for (const int64_t size : tensor.shape) bytes *= size;
    return bytes;
  }
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorHeader> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : state_(new State{OutputFile(path), std::move(tensors)}) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string> names;
  int64_t offset = 0;
  for (const TensorHeader& tensor : state_->tensors) {
    check(!is_block_type(tensor.dtype), "a safetensors file cannot hold {} of type {}", tensor.name,
          dtype_name(tensor.dtype));
    check(names.insert(tensor.name).second, "a tensor {} was given twice", tensor.name);
    const int64_t end = offset + State::bytes_of(tensor);
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)},
                           {"shape", tensor.shape},
                           {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  const uint64_t length = text.size();
  state_->file.write(std::as_bytes(std::span(&length, 1)));
  state_->file.write(text);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  check(state_->next < state_->tensors.size() && state_->tensors[state_->next].name == name,
        "{}: tensor {} is not the next one", state_->file.path(), name);
  const int64_t expected = State::bytes_of(state_->tensors[state_->next]);
  check(static_cast<int64_t>(bytes.size()) == expected, "{}: tensor {} must have {} bytes, got {}",
        state_->file.path(), name, expected, bytes.size());
  state_->file.write(bytes);
  ++state_->next;
}

void SafetensorsWriter::finish() {
  check(state_->next == state_->tensors.size(), "{}: tensor {} was not written",
        state_->file.path(),
        state_->next < state_->tensors.size() ? state_->tensors[state_->next].name : "");
  state_->file.finish();
}

}  // namespace qlora::io

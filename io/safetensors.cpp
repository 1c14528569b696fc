#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "io/file_kind.h"
#include "io/json.h"
#include "io/json_text.h"
#include "io/mapped_file.h"
#include "io/output_file.h"

namespace qlora::io {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kLongestHeader = 100'000'000;  // as the reference reader
constexpr size_t kMostDimensions = 16;
constexpr uint64_t kMostElements = uint64_t{1} << 56;  // times 8 bytes still fits 64 bits
constexpr int64_t kMostBytes = int64_t{1} << 60;

DType dtype_named(const JsonNode& node) {
  const std::string name = node.as_string();
  for (int i = 0; i <= static_cast<int>(DType::kC64); ++i) {
    const auto dtype = static_cast<DType>(i);
    if (!is_block_type(dtype) && dtype_name(dtype) == name) return dtype;
  }
  node.reject("a known element type (BF16, F16, F32, U8, ...)");
}

// Bytes of a tensor. A zero among the dimensions excuses no overflow of the others: products are
// formed in any order later.
uint64_t byte_count(const TensorView& tensor, const JsonNode& shape) {
  uint64_t count = 1;
  bool empty = false;
  for (const int64_t size : tensor.shape) {
    empty = empty || size == 0;
    const uint64_t factor = std::max<uint64_t>(1, static_cast<uint64_t>(size));
    if (count > kMostElements / factor) shape.reject("of at most 2^56 elements");
    count *= factor;
  }
  return empty ? 0 : count * static_cast<uint64_t>(bytes_per_block(tensor.dtype));
}

// The elements of an array, whose length is checked before anything is made of them.
std::vector<JsonNode> short_array(const JsonNode& node, size_t most, const char* requirement) {
  if (!node.value().is_array() || node.value().size() > most) node.reject(requirement);
  return node.elements();
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
  for (const JsonNode& size : short_array(shape, kMostDimensions, "an array of at most 16 sizes"))
    tensor.shape.push_back(size.as_integer(0, int64_t{1} << 48));
  const JsonNode offsets = entry.at("data_offsets");
  const std::vector<JsonNode> ends = short_array(offsets, 2, "[begin, end]");
  if (ends.size() != 2) offsets.reject("[begin, end]");
  const int64_t begin = ends[0].as_integer(0, kMostBytes);
  const int64_t end = ends[1].as_integer(begin, kMostBytes);
  const uint64_t bytes = byte_count(tensor, shape);
  if (bytes != static_cast<uint64_t>(end - begin)) {
    offsets.reject(fmt::format("{} bytes apart, as dtype and shape say", bytes));
  }
  if (static_cast<uint64_t>(end) > data.size())
    fail<FormatError>(
        "{}: the file ends before the end of tensor {}, which is at byte {} of the data, of which "
        "there are {}; it is cut short: download or copy it again",
        file->path(), name, end, data.size());
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

// As a JSON string; Error for what JSON cannot hold.
std::string quoted(const std::string& text) {
  try {
    return io::json_text(nlohmann::json(text));
  } catch (const nlohmann::json::exception&) {
    fail<Error>("a safetensors file can hold names in UTF-8 only, one is not");
  }
}

// The JSON at the beginning of a file.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& path) {
  // The first bytes are a length, which may look like anything: other files tell by what follows.
  const auto require = [&](bool holds, const std::string& otherwise) {
    if (holds) return;
    const std::string kind = kind_by_first_bytes(bytes);
    if (!kind.empty()) fail<FormatError>("{} must be a safetensors file, but is {}", path, kind);
    throw FormatError(otherwise);
  };
  require(bytes.size() >= kLengthBytes,
          fmt::format("{} must be a safetensors file: {} bytes are too few", path, bytes.size()));
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  require(
      length <= kLongestHeader && length <= bytes.size() - kLengthBytes,
      fmt::format(
          "{}: the header must fit into the file and take at most {} bytes, but is said to take {} "
          "of {}; the file is cut off or no safetensors file",
          path, kLongestHeader, length, bytes.size()));
  const auto* text = reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  require(
      length > 0 && *text == '{',
      fmt::format("{}: the header must begin with '{{'; the file is no safetensors file", path));
  return {text, length};
}

}  // namespace

TensorFile read_safetensors(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  const std::string_view text = header_text(bytes, path);
  const nlohmann::json document = parse_json(text, path + " (header)");
  const JsonNode header(document, path + " (header)");
  const std::span<const std::byte> data = bytes.subspan(kLengthBytes + text.size());
  TensorFile result;
  for (const auto& [name, ignored] : document.items()) {
    const JsonNode entry = header.at(name);
    if (name == "__metadata__") {
      if (entry.is_null()) continue;  // MLX writes it so
      if (!entry.value().is_object()) entry.reject("an object of strings");
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
  result.index_tensors();
  return result;
}

size_t bytes_of(const TensorHeader& tensor) {
  auto bytes = static_cast<size_t>(bytes_per_block(tensor.dtype));
  for (const int64_t size : tensor.shape) bytes *= static_cast<size_t>(size);
  return bytes;
}

struct SafetensorsWriter::State {
  OutputFile file;
  std::vector<TensorHeader> tensors;
  size_t next = 0;
};

SafetensorsWriter::SafetensorsWriter(const std::string& path, std::vector<TensorHeader> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : state_(new State{OutputFile(path), std::move(tensors)}) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) text += quoted(key) + ":" + quoted(value) + ",";
    text.back() = '}';
    text += ',';
  }
  std::set<std::string> names;
  size_t offset = 0;
  for (const TensorHeader& tensor : state_->tensors) {
    check(!is_block_type(tensor.dtype), "a safetensors file cannot hold {} of type {}", tensor.name,
          dtype_name(tensor.dtype));
    check(names.insert(tensor.name).second, "a tensor {} was given twice", tensor.name);
    const size_t end = offset + bytes_of(tensor);
    text += fmt::format(R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}},)",
                        quoted(tensor.name), dtype_name(tensor.dtype),
                        io::json_text(nlohmann::json(tensor.shape)), offset, end);
    offset = end;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.append((kLengthBytes - text.size() % kLengthBytes) % kLengthBytes, ' ');
  const uint64_t length = text.size();
  state_->file.write(std::as_bytes(std::span(&length, 1)));
  state_->file.write(text);
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  check(state_->next < state_->tensors.size() && state_->tensors[state_->next].name == name,
        "{}: tensor {} is not the next one", state_->file.path(), name);
  const size_t expected = bytes_of(state_->tensors[state_->next]);
  check(bytes.size() == expected, "{}: tensor {} must have {} bytes, got {}", state_->file.path(),
        name, expected, bytes.size());
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

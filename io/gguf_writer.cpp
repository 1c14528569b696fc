#include <algorithm>
#include <bit>
#include <limits>
#include <set>

#include "base/error.h"
#include "io/gguf.h"
#include "io/gguf_types.h"
#include "io/output_file.h"

namespace qlora::io {
namespace {

template <typename T>
void put(OutputFile& file, T value) {
  file.write(std::as_bytes(std::span(&value, 1)));
}

void put_text(OutputFile& file, const std::string& text) {
  put(file, static_cast<uint64_t>(text.size()));
  file.write(text);
}

void put_type(OutputFile& file, GgufType type) { put(file, static_cast<uint32_t>(type)); }

// Signed and unsigned 32 bits where the values fit, 64 else.
template <typename Wide, typename Narrow>
bool fits(const Wide& value) {
  return value >= static_cast<Wide>(std::numeric_limits<Narrow>::min()) &&
         value <= static_cast<Wide>(std::numeric_limits<Narrow>::max());
}

template <typename Wide, typename Narrow>
void put_integer(OutputFile& file, Wide value, GgufType narrow, GgufType wide) {
  const bool small = fits<Wide, Narrow>(value);
  put_type(file, small ? narrow : wide);
  small ? put(file, static_cast<Narrow>(value)) : put(file, value);
}

template <typename T>
void put_array(OutputFile& file, GgufType type, const std::vector<T>& values) {
  put_type(file, GgufType::kArray);
  put_type(file, type);
  put(file, static_cast<uint64_t>(values.size()));
  file.write(std::as_bytes(std::span(values)));
}

template <typename Wide, typename Narrow>
void put_integers(OutputFile& file, const std::vector<Wide>& values, GgufType narrow,
                  GgufType wide) {
  for (const Wide value : values)
    if (!fits<Wide, Narrow>(value)) return put_array(file, wide, values);
  put_array(file, narrow, std::vector<Narrow>(values.begin(), values.end()));
}

struct ValueWriter {
  OutputFile& file;
  void operator()(int64_t v) const {
    put_integer<int64_t, int32_t>(file, v, GgufType::kI32, GgufType::kI64);
  }
  void operator()(uint64_t v) const {
    put_integer<uint64_t, uint32_t>(file, v, GgufType::kU32, GgufType::kU64);
  }
  void operator()(float v) const {
    put_type(file, GgufType::kF32);
    put(file, v);
  }
  void operator()(double v) const {
    put_type(file, GgufType::kF64);
    put(file, v);
  }
  void operator()(bool v) const {
    put_type(file, GgufType::kBool);
    put(file, static_cast<uint8_t>(v));
  }
  void operator()(const std::string& v) const {
    put_type(file, GgufType::kString);
    put_text(file, v);
  }
  void operator()(const std::vector<int64_t>& v) const {
    put_integers<int64_t, int32_t>(file, v, GgufType::kI32, GgufType::kI64);
  }
  void operator()(const std::vector<uint64_t>& v) const {
    put_integers<uint64_t, uint32_t>(file, v, GgufType::kU32, GgufType::kU64);
  }
  void operator()(const std::vector<float>& v) const { put_array(file, GgufType::kF32, v); }
  void operator()(const std::vector<double>& v) const { put_array(file, GgufType::kF64, v); }
  void operator()(const std::vector<uint8_t>& v) const { put_array(file, GgufType::kBool, v); }
  void operator()(const std::vector<std::byte>& v) const { put_array(file, GgufType::kU8, v); }
  void operator()(const std::vector<std::string>& v) const {
    put_type(file, GgufType::kArray);
    put_type(file, GgufType::kString);
    put(file, static_cast<uint64_t>(v.size()));
    for (const std::string& text : v) put_text(file, text);
  }
};

uint64_t bytes_of(const TensorView& tensor) {
  return static_cast<uint64_t>(tensor.num_elements() / elements_per_block(tensor.dtype) *
                               bytes_per_block(tensor.dtype));
}

// What the metadata says, so that a file's own metadata can be passed on.
uint64_t alignment_of(const std::vector<std::pair<std::string, GgufValue>>& metadata) {
  for (const auto& [key, value] : metadata) {
    if (key != "general.alignment") continue;
    const auto* alignment = std::get_if<uint64_t>(&value);
    check(alignment && std::has_single_bit(*alignment) && *alignment <= 1 << 20,
          "general.alignment must be an unsigned power of two up to 2^20");
    return *alignment;
  }
  return kGgufAlignment;
}

void require_storable(const TensorView& tensor, const std::string& path) {
  const bool fits = !tensor.shape.empty() && tensor.shape.size() <= 4 &&
                    std::ranges::all_of(tensor.shape, [](int64_t size) { return size > 0; });
  check(fits, "{}: tensor {} must have 1 to 4 dimensions, none of them empty", path, tensor.name);
  const int64_t block = elements_per_block(tensor.dtype);
  check(tensor.shape.back() % block == 0,
        "{}: tensor {} of type {} must have rows of a multiple of {}, found {}", path, tensor.name,
        dtype_name(tensor.dtype), block, tensor.shape.back());
}

}  // namespace

struct GgufWriter::State {
  OutputFile file;
  std::vector<TensorView> tensors;
  uint64_t alignment = kGgufAlignment;
  size_t next = 0;
};

GgufWriter::GgufWriter(const std::string& path,
                       const std::vector<std::pair<std::string, GgufValue>>& metadata,
                       std::vector<TensorView> headers)
    : state_(new State{OutputFile(path), std::move(headers), alignment_of(metadata)}) {
  OutputFile& file = state_->file;
  put(file, kGgufMagic);
  put(file, kGgufVersion);
  put(file, static_cast<uint64_t>(state_->tensors.size()));
  put(file, static_cast<uint64_t>(metadata.size()));
  std::set<std::string> keys;
  for (const auto& [key, value] : metadata) {
    check(keys.insert(key).second, "{}: the metadata key {} was given twice", path, key);
    put_text(file, key);
    std::visit(ValueWriter{file}, value);
  }
  const uint64_t alignment = state_->alignment;
  uint64_t offset = 0;
  std::set<std::string> names;
  for (const TensorView& tensor : state_->tensors) {
    require_storable(tensor, path);
    check(names.insert(tensor.name).second, "{}: a tensor {} was given twice", path, tensor.name);
    put_text(file, tensor.name);
    put(file, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size)
      put(file, static_cast<uint64_t>(*size));
    put(file, ggml_type(tensor.dtype));
    put(file, offset);
    offset += (bytes_of(tensor) + alignment - 1) / alignment * alignment;
  }
  file.pad_to(alignment);
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  check(state_->next < state_->tensors.size() && state_->tensors[state_->next].name == name,
        "{}: tensor {} is not the next one", state_->file.path(), name);
  const uint64_t expected = bytes_of(state_->tensors[state_->next]);
  check(bytes.size() == expected, "{}: tensor {} must have {} bytes, got {}", state_->file.path(),
        name, expected, bytes.size());
  state_->file.write(bytes);
  state_->file.pad_to(state_->alignment);
  ++state_->next;
}

void GgufWriter::finish() {
  check(state_->next == state_->tensors.size(), "{}: {} tensors were not written",
        state_->file.path(), state_->tensors.size() - state_->next);
  state_->file.finish();
}

}  // namespace qlora::io

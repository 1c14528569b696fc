#include "io/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <regex>

#include "base/error.h"
#include "io/file_kind.h"
#include "io/gguf_types.h"
#include "io/mapped_file.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;

constexpr uint64_t kMostDimensions = 4;
constexpr uint64_t kLongestName = 1 << 16;

// Reads forward through the header and believes no length.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  size_t offset() const { return offset_; }
  size_t left() const { return bytes_.size() - offset_; }

  template <typename T>
  T read(const char* what) {
    need(sizeof(T), what);
    read_at_ = offset_;
    T value;
    std::memcpy(&value, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return value;
  }

  std::string text(const char* what, uint64_t longest) {
    const auto length = read<uint64_t>(what);
    if (length <= left() && length > longest)
      reject(what, fmt::format("at most {} bytes long", longest), length);
    need(length, what);
    std::string value(reinterpret_cast<const char*>(bytes_.data()) + offset_, length);
    offset_ += length;
    return value;
  }

  // A count of things that take at least `bytes_each`.
  uint64_t count(const char* what, uint64_t bytes_each) {
    const auto value = read<uint64_t>(what);
    if (value > left() / bytes_each) {
      reject(what, "no more than what the rest of the file can hold", value);
    }
    return value;
  }

  // Of the number read last.
  [[noreturn]] void reject(const char* what, const std::string& requirement, uint64_t found) const {
    fail<FormatError>("{}: {} at byte {} must be {}, found {}; the file is damaged or cut off",
                      path_, what, read_at_, requirement, found);
  }

 private:
  void need(uint64_t count, const char* what) const {
    if (count > left()) {
      fail<FormatError>("{}: the file ends at byte {} within {}; it is cut off", path_,
                        bytes_.size(), what);
    }
  }

  std::span<const std::byte> bytes_;
  const std::string& path_;
  size_t offset_ = 0, read_at_ = 0;
};

template <typename Stored, typename Kept>
std::vector<Kept> read_array(Cursor& cursor, uint64_t count) {
  std::vector<Kept> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i)
    values.push_back(static_cast<Kept>(cursor.read<Stored>("an array")));
  return values;
}

GgufValue read_array(Cursor& cursor) {
  const auto type = cursor.read<uint32_t>("the type of an array");
  const uint64_t count = cursor.count("the length of an array", smallest_size(type));
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return read_array<uint8_t, std::byte>(cursor, count);
    case GgufType::kI8:
      return read_array<int8_t, int64_t>(cursor, count);
    case GgufType::kU16:
      return read_array<uint16_t, uint64_t>(cursor, count);
    case GgufType::kI16:
      return read_array<int16_t, int64_t>(cursor, count);
    case GgufType::kU32:
      return read_array<uint32_t, uint64_t>(cursor, count);
    case GgufType::kI32:
      return read_array<int32_t, int64_t>(cursor, count);
    case GgufType::kU64:
      return read_array<uint64_t, uint64_t>(cursor, count);
    case GgufType::kI64:
      return read_array<int64_t, int64_t>(cursor, count);
    case GgufType::kF32:
      return read_array<float, float>(cursor, count);
    case GgufType::kF64:
      return read_array<double, double>(cursor, count);
    case GgufType::kBool:
      return read_array<uint8_t, uint8_t>(cursor, count);
    case GgufType::kString: {
      std::vector<std::string> values;
      values.reserve(count);
      for (uint64_t i = 0; i < count; ++i)
        values.push_back(cursor.text("a string of an array", cursor.left()));
      return values;
    }
    default:
      cursor.reject("the type of an array", "a known scalar type (0 to 8, 10 to 12)", type);
  }
}

GgufValue read_value(Cursor& cursor) {
  const auto type = cursor.read<uint32_t>("a value type");
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return uint64_t{cursor.read<uint8_t>("a value")};
    case GgufType::kI8:
      return int64_t{cursor.read<int8_t>("a value")};
    case GgufType::kU16:
      return uint64_t{cursor.read<uint16_t>("a value")};
    case GgufType::kI16:
      return int64_t{cursor.read<int16_t>("a value")};
    case GgufType::kU32:
      return uint64_t{cursor.read<uint32_t>("a value")};
    case GgufType::kI32:
      return int64_t{cursor.read<int32_t>("a value")};
    case GgufType::kU64:
      return cursor.read<uint64_t>("a value");
    case GgufType::kI64:
      return cursor.read<int64_t>("a value");
    case GgufType::kF32:
      return cursor.read<float>("a value");
    case GgufType::kF64:
      return cursor.read<double>("a value");
    case GgufType::kBool:
      return cursor.read<uint8_t>("a value") != 0;
    case GgufType::kString:
      return cursor.text("a string", cursor.left());
    case GgufType::kArray:
      return read_array(cursor);
  }
  cursor.reject("a value type", "a known type (0 to 12)", type);
}

struct TensorInfo {
  TensorView view;
  uint64_t offset = 0, bytes = 0;
};

// Bytes from dims, or a FormatError where they overflow or break a block.
uint64_t tensor_bytes(const TensorView& view, uint64_t file_bytes, const std::string& path) {
  const auto block = static_cast<uint64_t>(elements_per_block(view.dtype));
  const uint64_t row = view.shape.empty() ? 1 : static_cast<uint64_t>(view.shape.back());
  if (row % block != 0) {
    fail<FormatError>("{}: tensor {} of type {} must have rows of a multiple of {}, found {}", path,
                      view.name, dtype_name(view.dtype), block, row);
  }
  const uint64_t most = file_bytes * block;
  uint64_t count = 1;
  for (const int64_t size : view.shape) {
    if (static_cast<uint64_t>(size) > most / std::max<uint64_t>(count, 1)) {
      fail<FormatError>("{}: tensor {} must fit into the file, its shape is larger", path,
                        view.name);
    }
    count *= static_cast<uint64_t>(size);
  }
  return count / block * static_cast<uint64_t>(bytes_per_block(view.dtype));
}

TensorInfo read_tensor_info(Cursor& cursor, uint64_t file_bytes, const std::string& path) {
  TensorInfo info;
  info.view.name = cursor.text("a tensor name", kLongestName);
  info.view.file = path;
  const auto dims = cursor.read<uint32_t>("a tensor's number of dimensions");
  if (dims == 0 || dims > kMostDimensions) {
    cursor.reject("a tensor's number of dimensions", "1 to 4", dims);
  }
  for (uint32_t i = 0; i < dims; ++i) {
    const auto size = cursor.read<uint64_t>("a tensor's dimension");
    if (size == 0 || size > uint64_t{1} << 48) {
      cursor.reject("a tensor's dimension", "1 to 2^48", size);
    }
    info.view.shape.insert(info.view.shape.begin(), static_cast<int64_t>(size));
  }
  const auto type = cursor.read<uint32_t>("a tensor type");
  info.view.dtype = dtype_of_ggml(type, path, info.view.name);
  info.offset = cursor.read<uint64_t>("a tensor offset");
  info.bytes = tensor_bytes(info.view, file_bytes, path);
  return info;
}

void require_disjoint(std::vector<TensorInfo> infos, const std::string& path) {
  std::ranges::sort(infos, {}, &TensorInfo::offset);
  for (size_t i = 1; i < infos.size(); ++i) {
    if (infos[i].offset < infos[i - 1].offset + infos[i - 1].bytes) {
      fail<FormatError>("{}: tensors {} and {} overlap", path, infos[i - 1].view.name,
                        infos[i].view.name);
    }
  }
}

void read_header(Cursor& cursor, std::span<const std::byte> bytes, const std::string& path) {
  const std::string kind = kind_by_first_bytes(bytes);
  const auto magic = cursor.read<uint32_t>("the magic");
  if (magic != kGgufMagic && !kind.empty())
    fail<FormatError>("{} must be a GGUF file, but is {}", path, kind);
  if (magic != kGgufMagic) fail<FormatError>("{} must be a GGUF file (magic 'GGUF')", path);
  const auto version = cursor.read<uint32_t>("the version");
  if ((version & 0xffff) == 0) {
    fail<FormatError>("{} is a big-endian GGUF file; convert it to little-endian", path);
  }
  if (version != kGgufVersion && version != kGgufVersion2) {
    fail<FormatError>(
        "{}: the GGUF version must be {} or {}, found {}; convert the file again with a "
        "current llama.cpp",
        path, kGgufVersion2, kGgufVersion, version);
  }
}

uint64_t alignment_of(const std::map<std::string, GgufValue>& metadata, const std::string& path) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return kGgufAlignment;
  const auto* alignment = std::get_if<uint64_t>(&found->second);
  if (alignment == nullptr || *alignment > 1 << 20 || !std::has_single_bit(*alignment)) {
    fail<FormatError>("{}: general.alignment must be a power of two, at most 2^20{}", path,
                      alignment == nullptr ? "" : fmt::format(", found {}", *alignment));
  }
  return *alignment;
}

// "model-00001-of-00003.gguf" and 1 -> "model-00002-of-00003.gguf"; empty if the name says no part.
std::string part_path(const std::string& path, int64_t index, int64_t count) {
  static const std::regex numbered("(.*)-[0-9]{5}-of-[0-9]{5}\\.gguf");
  std::smatch found;
  const std::string name = fs::path(path).filename().string();
  if (!std::regex_match(name, found, numbered)) return "";
  return (fs::path(path).parent_path() /
          fmt::format("{}-{:05}-of-{:05}.gguf", found[1].str(), index + 1, count))
      .string();
}

}  // namespace

GgufFile::GgufFile(const std::string& path) : path_(path) {
  read_part(path, metadata_);
  const int64_t count = integer_or("split.count", 0, 1 << 16, 0);
  if (count > 1) read_other_parts(count);
}

GgufFile::GgufFile(const std::string& path,
                   const std::vector<std::pair<std::string, GgufValue>>& metadata,
                   std::vector<TensorView> headers)
    : path_(path), metadata_(metadata.begin(), metadata.end()), tensors_(std::move(headers)) {
  for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

void GgufFile::read_other_parts(int64_t count) {
  const int64_t number = integer("split.no", 0, count - 1);
  const std::string first = part_path(path_, 0, count);
  if (number != 0)
    fail<FormatError>("{} is part {} of {} (split.no, split.count); give the first part{}", path_,
                      number + 1, count, first.empty() ? "" : ", " + first);
  if (fs::path(first).filename() != fs::path(path_).filename())
    fail<FormatError>(
        "{} is part 1 of {} (split.count) and must have a name that ends in -00001-of-{:05}.gguf, "
        "by which the other parts are found; give the parts their names back, or join them with "
        "llama-gguf-split --merge",
        path_, count, count);
  for (int64_t i = 1; i < count; ++i) {
    const std::string part = part_path(path_, i, count);
    std::error_code unreadable;
    if (!fs::exists(part, unreadable))
      fail<FormatError>("{} is missing: {} is part 1 of {} (split.count)", part, path_, count);
    std::map<std::string, GgufValue> metadata;
    read_part(part, metadata);
    const auto found = metadata.find("split.no");
    const auto* no = found == metadata.end() ? nullptr : std::get_if<uint64_t>(&found->second);
    if (no == nullptr || *no != static_cast<uint64_t>(i))
      fail<FormatError>("{} must be part {} of {}, as its name says (split.no is {})", part, i + 1,
                        count, no == nullptr ? "missing" : fmt::to_string(*no + 1));
  }
  const auto stored = static_cast<int64_t>(tensors_.size());
  if (const int64_t total = integer_or("split.tensors.count", 0, INT32_MAX, stored);
      total != stored)
    fail<FormatError>("{}: split.tensors.count is {}, but the {} parts have {} tensors", path_,
                      total, count, stored);
}

void GgufFile::read_part(const std::string& path, std::map<std::string, GgufValue>& metadata) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  const std::span<const std::byte> bytes = file->bytes();
  Cursor cursor(bytes, path);
  read_header(cursor, bytes, path);
  constexpr uint64_t kSmallestTensor = 8 + 4 + 8 + 4 + 8, kSmallestEntry = 8 + 4 + 1;
  const uint64_t num_tensors = cursor.count("the number of tensors", kSmallestTensor);
  const uint64_t num_entries = cursor.count("the number of metadata entries", kSmallestEntry);
  for (uint64_t i = 0; i < num_entries; ++i) {
    const std::string key = cursor.text("a metadata key", kLongestName);
    if (!metadata.emplace(key, read_value(cursor)).second) {
      fail<FormatError>("{}: the metadata key {} stands there twice", path, key);
    }
  }
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    infos.push_back(read_tensor_info(cursor, bytes.size(), path));
    if (!index_.emplace(infos.back().view.name, tensors_.size() + i).second) {
      fail<FormatError>("{}: the tensor {} stands there twice", path, infos.back().view.name);
    }
  }
  const uint64_t alignment = alignment_of(metadata, path);
  const uint64_t start = (cursor.offset() + alignment - 1) / alignment * alignment;
  for (TensorInfo& info : infos) {
    if (info.offset % alignment != 0) {
      fail<FormatError>("{}: tensor {} must begin at a multiple of {}, found {}", path,
                        info.view.name, alignment, info.offset);
    }
    if (start > bytes.size() || info.offset > bytes.size() - start ||
        info.bytes > bytes.size() - start - info.offset) {
      fail<FormatError>(
          "{}: tensor {} must lie within the file of {} bytes, but takes {} bytes from {} + {} on; "
          "the "
          "file is cut off",
          path, info.view.name, bytes.size(), info.bytes, start, info.offset);
    }
    info.view.bytes = bytes.subspan(start + info.offset, info.bytes);
    info.view.owner = file;
  }
  require_disjoint(infos, path);
  for (TensorInfo& info : infos) tensors_.push_back(std::move(info.view));
}

}  // namespace qlora::io

#include "io/torch_file/torch_file.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/utf8.h"
#include "io/file_kind.h"
#include "io/mapped_file.h"
#include "io/torch_file/owned_bytes.h"
#include "io/torch_file/pickle.h"
#include "io/torch_file/strided_tensor.h"
#include "io/torch_file/torch_globals.h"
#include "io/torch_file/zip.h"

namespace qlora::io {
namespace {
using namespace std::string_view_literals;
using Kind = PickleKind;

constexpr size_t kDeepest = 64;
constexpr size_t kMostEntries = size_t{1} << 22;  // of all dicts and lists
constexpr size_t kLongestName = 1000;
constexpr std::string_view kOldBegin = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"sv;

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The name of the archive's folder with "/" behind it, which torch makes of the file's name.
std::string folder_of(const ZipEntries& entries, const std::string& path) {
  constexpr std::string_view kPickle = "/data.pkl";
  std::string folder;
  for (const auto& [name, ignored] : entries) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    if (!folder.empty()) fail<FormatError>("{} must hold one data.pkl, and holds several", path);
    folder = name.substr(0, name.find('/') + 1);
  }
  if (folder.empty())
    fail<FormatError>("{} must be a file that torch.save wrote: the archive has no data.pkl", path);
  return folder;
}

void require_archive(std::span<const std::byte> bytes, const std::string& path) {
  const std::string_view text = text_of(bytes);
  if (text.starts_with("PK\x03\x04")) return;
  if (text.starts_with(kOldBegin))
    fail<FormatError>(
        "{} is in the format from before torch 1.6, which this program does not read; convert it: "
        "python -c \"import torch; torch.save(torch.load('{}', map_location='cpu', "
        "weights_only=True), 'converted.bin')\"",
        path, path);
  const std::string kind = kind_by_first_bytes(bytes);
  fail<FormatError>("{} must be a file that torch.save wrote{}{}", path,
                    kind.empty() ? "" : ", but is ", kind);
}

// Makes the tensors of what a pickle describes.
class StateDict {
 public:
  explicit StateDict(const std::string& path)
      : file_(MappedFile::open(path)), owned_(std::make_shared<OwnedBytes>()) {
    require_archive(file_->bytes(), path);
    entries_ = read_stored_zip(file_->bytes(), path);
    folder_ = folder_of(entries_, path);
    const auto order = entries_.find(folder_ + "byteorder");
    if (order != entries_.end() && text_of(order->second) != "little")
      fail<FormatError>(
          "{} must hold little-endian numbers, as torch.save writes them on most machines, but "
          "says '{}'; save it with safetensors on the machine that it comes from",
          path, utf8_beginning(text_of(order->second), 20));
    pickle_ = read_pickle(text_of(entries_.at(folder_ + "data.pkl")), path, is_torch_global);
  }

  TensorFile read() {
    if (pickle_[pickle_.root].kind != Kind::kDict)
      fail<FormatError>(
          "{} must hold a dict of tensors, as torch.save(model.state_dict(), ...) has",
          file_->path());
    flatten(pickle_.root, "", 0);
    result_.index_tensors();
    if (result_.index.size() != result_.tensors.size()) reject_twice();
    return std::move(result_);
  }

 private:
  [[noreturn]] void reject(const std::string& name, const std::string& what) const {
    fail<FormatError>("{}: {} {}", file_->path(), name, what);
  }
  [[noreturn]] void reject_twice() const {
    for (size_t i = 0; i < result_.tensors.size(); ++i)
      if (result_.index.at(result_.tensors[i].name) != i)
        reject(result_.tensors[i].name, "must be there once, and is there twice");
    fail<Error>("{}: the index lacks a name", file_->path());
  }

  void count(size_t entries, const std::string& name) {
    num_entries_ += entries;
    if (num_entries_ > kMostEntries)
      reject(name, fmt::format("is one of more than {} values, too many", kMostEntries));
  }

  void flatten(uint32_t place, const std::string& name, size_t depth) {
    const PickleValue& value = pickle_[place];
    if (depth > kDeepest || name.size() > kLongestName)
      reject(std::string(utf8_beginning(name, kLongestName)),
             fmt::format("must lie in at most {} dicts and have a name of at most {} bytes",
                         kDeepest, kLongestName));
    switch (value.kind) {
      case Kind::kBool:
      case Kind::kInteger:
      case Kind::kFloat:
        return add_numbers(name, {}, {place});
      case Kind::kTuple:
      case Kind::kList:
        return flatten_list(value.items, name, depth);
      case Kind::kDict:
        return flatten_dict(value.items, name, depth);
      case Kind::kCall:
        return flatten_call(value, name, depth);
      case Kind::kPersistent:
        reject(name, "must be a tensor, and is a storage");
      case Kind::kGlobal:
      case Kind::kNone:
      case Kind::kText:
      case Kind::kBytes:
        return;
    }
  }

  void flatten_dict(const std::vector<uint32_t>& items, const std::string& name, size_t depth) {
    count(items.size() / 2, name);
    for (size_t i = 0; i < items.size(); i += 2)
      flatten(items[i + 1], joined(name, key_text(items[i], name)), depth + 1);
  }
  static std::string joined(const std::string& name, const std::string& key) {
    return name.empty() ? key : name + "." + key;
  }
  std::string key_text(uint32_t place, const std::string& name) const {
    const PickleValue& key = pickle_[place];
    if (key.kind == Kind::kInteger) return std::to_string(key.integer);
    if (key.kind != Kind::kText) reject(name, "must have names as keys, and has others");
    return std::string(key.text.substr(0, kLongestName + 1));
  }

  void flatten_list(const std::vector<uint32_t>& items, const std::string& name, size_t depth) {
    count(items.size(), name);
    const bool numbers = std::ranges::all_of(items, [this](uint32_t item) {
      return pickle_[item].kind == Kind::kInteger || pickle_[item].kind == Kind::kFloat;
    });
    if (numbers) return add_numbers(name, {static_cast<int64_t>(items.size())}, items);
    for (size_t i = 0; i < items.size(); ++i)
      flatten(items[i], joined(name, std::to_string(i)), depth + 1);
  }

  void flatten_call(const PickleValue& call, const std::string& name, size_t depth) {
    const std::string function = full_name(pickle_[call.items[0]]);
    const std::vector<uint32_t>& arguments = pickle_[call.items[1]].items;
    if (function == "torch.device" || function == "_codecs.encode") return;
    if (function == "torch._utils._rebuild_tensor_v2" && arguments.size() >= 6)
      return add_tensor(name, arguments, std::nullopt);
    if (function == "torch._utils._rebuild_tensor_v3" && arguments.size() >= 7)
      return add_tensor(name, arguments, dtype_of(arguments[6], name));
    if (function.starts_with("torch._utils._rebuild_parameter") && !arguments.empty())
      return flatten(arguments[0], name, depth + 1);
    if (function == "torch.Size" && arguments.size() == 1)
      return flatten(arguments[0], name, depth + 1);
    reject(name, fmt::format("must be a tensor, and is made by {} of {} arguments", function,
                             arguments.size()));
  }

  // Numbers as a tensor of this shape: whole ones if all of them are.
  void add_numbers(const std::string& name, std::vector<int64_t> shape,
                   const std::vector<uint32_t>& places) {
    const auto has = [&](Kind kind) {
      return std::ranges::any_of(places, [&](uint32_t p) { return pickle_[p].kind == kind; });
    };
    const DType dtype = has(Kind::kFloat)  ? DType::kF64
                        : has(Kind::kBool) ? DType::kBool
                                           : DType::kI64;
    const auto bytes = static_cast<size_t>(bytes_per_block(dtype));
    const std::span<std::byte> all = owned_->take(places.size() * bytes);
    for (size_t i = 0; i < places.size(); ++i) {
      const PickleValue& value = pickle_[places[i]];
      const double number =
          value.kind == Kind::kFloat ? value.number : static_cast<double>(value.integer);
      // The first byte of a little-endian 0 or 1 is that of a bool.
      const void* from = dtype == DType::kF64 ? static_cast<const void*>(&number) : &value.integer;
      std::memcpy(all.data() + i * bytes, from, bytes);
    }
    add(name, dtype, std::move(shape), all, owned_);
  }

  void add(const std::string& name, DType dtype, std::vector<int64_t> shape,
           std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
    result_.tensors.push_back({.name = name,
                               .dtype = dtype,
                               .shape = std::move(shape),
                               .bytes = bytes,
                               .owner = std::move(owner),
                               .file = file_->path()});
  }

  // From (storage, offset, sizes, strides, ...). Without a dtype it is the storage's.
  void add_tensor(const std::string& name, const std::vector<uint32_t>& arguments,
                  std::optional<DType> dtype) {
    StridedTensor tensor{.storage = {},
                         .dtype = DType::kU8,
                         .offset = integer(arguments[1], name),
                         .sizes = integers(arguments[2], name),
                         .strides = integers(arguments[3], name)};
    take_storage(arguments[0], name, dtype, tensor);
    const int64_t elements = checked_elements(tensor, fmt::format("{}: {}", file_->path(), name));
    if (is_contiguous(tensor))
      return add(name, tensor.dtype, tensor.sizes, contiguous_bytes(tensor, elements), file_);
    const auto bytes =
        static_cast<size_t>(elements) * static_cast<size_t>(bytes_per_block(tensor.dtype));
    // An expanded tensor repeats its storage, so nothing but a limit bounds its size.
    if (bytes > tensor.storage.size() || bytes > 2 * file_->bytes().size() - gathered_bytes_)
      reject(name,
             "must not repeat elements of its storage; call contiguous() on it before torch.save");
    gathered_bytes_ += bytes;
    const std::span<std::byte> copy = owned_->take(bytes);
    gather(tensor, copy);
    add(name, tensor.dtype, tensor.sizes, copy, owned_);
  }

  // ("storage", class, key, device, number of elements), which lie in the entry data/KEY.
  void take_storage(uint32_t place, const std::string& name, std::optional<DType> dtype,
                    StridedTensor& tensor) const {
    const PickleValue& persistent = pickle_[place];
    if (persistent.kind != Kind::kPersistent) reject(name, "must be made from a storage");
    const std::vector<uint32_t>& id = pickle_[persistent.items[0]].items;
    if (id.size() != 5 || pickle_[id[0]].text != "storage" ||
        pickle_[id[1]].kind != Kind::kGlobal || pickle_[id[2]].kind != Kind::kText)
      reject(name, "must have a storage as torch.save names it");
    const std::string type = full_name(pickle_[id[1]]);
    const auto stored = storage_dtype(type);
    if (!stored || (!dtype && type == "torch.storage.UntypedStorage"))
      reject(name, fmt::format("must have a typed storage, found {}", type));
    const std::string entry = folder_ + "data/" + std::string(pickle_[id[2]].text);
    const auto found = entries_.find(entry);
    if (found == entries_.end())
      reject(name, fmt::format("must have its storage in {}, which the archive lacks", entry));
    const int64_t elements = integer(id[4], name);
    const size_t size = found->second.size(), bytes = static_cast<size_t>(bytes_per_block(*stored));
    if (elements < 0 || size % bytes != 0 || static_cast<uint64_t>(elements) != size / bytes)
      reject(name, fmt::format("is said to have {} elements of {} in {}, which has {} bytes",
                               elements, dtype_name(*stored), entry, size));
    tensor.storage = found->second;
    tensor.dtype = dtype.value_or(*stored);
  }

  DType dtype_of(uint32_t place, const std::string& name) const {
    const PickleValue& value = pickle_[place];
    const std::string type = value.kind == Kind::kGlobal ? full_name(value) : "no torch.dtype";
    const auto dtype = torch_dtype(type);
    if (!dtype)
      reject(name, fmt::format("must be of a type that this program knows, found {}", type));
    return *dtype;
  }

  int64_t integer(uint32_t place, const std::string& name) const {
    if (pickle_[place].kind != Kind::kInteger)
      reject(name, "must have whole numbers as sizes, strides and offset");
    return pickle_[place].integer;
  }
  std::vector<int64_t> integers(uint32_t place, const std::string& name) const {
    const PickleValue* value = &pickle_[place];
    if (value->kind == Kind::kCall && full_name(pickle_[value->items[0]]) == "torch.Size" &&
        !pickle_[value->items[1]].items.empty())
      value = &pickle_[pickle_[value->items[1]].items[0]];
    if (value->kind != Kind::kTuple || value->items.size() > kMostDimensions)
      reject(name, fmt::format("must have tuples of at most {} numbers as sizes and strides",
                               kMostDimensions));
    std::vector<int64_t> numbers;
    for (const uint32_t item : value->items) numbers.push_back(integer(item, name));
    return numbers;
  }

  std::shared_ptr<const MappedFile> file_;
  std::shared_ptr<OwnedBytes> owned_;
  ZipEntries entries_;
  std::string folder_;
  Pickle pickle_;
  TensorFile result_;
  size_t num_entries_ = 0, gathered_bytes_ = 0;
};

}  // namespace

TensorFile read_torch_file(const std::string& path) { return StateDict(path).read(); }

}  // namespace qlora::io

// GGUF files, versions 2 and 3 (the same layout), little-endian (ggml's docs/gguf.md): metadata of
// llama.cpp's key names, tensors whose dims are stored fastest first and handed out here in PyTorch
// order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "io/tensor_view.h"

namespace qlora::io {

// Integers of all widths widen to (u)int64; F32 stays apart from F64 so that writing back is exact.
// An array of arrays is refused. Arrays of bool are vector<uint8_t>, those of U8 vector<byte>.
using GgufValue =
    std::variant<int64_t, uint64_t, float, double, bool, std::string, std::vector<int64_t>,
                 std::vector<uint64_t>, std::vector<float>, std::vector<double>,
                 std::vector<uint8_t>, std::vector<std::byte>, std::vector<std::string>>;

class GgufFile {
 public:
  // FormatError naming file and offset for anything truncated or lying: bad magic or version,
  // counts and lengths beyond the file, duplicate names, unaligned or overlapping tensors, unknown
  // types. The first of several parts (split.count) stands for all of them, which lie beside it by
  // their names; FormatError naming the first for another part, and a part that is missing.
  explicit GgufFile(const std::string& path);
  // What a file that is yet to be written will say: its metadata, and tensors without bytes.
  GgufFile(const std::string& path, const std::vector<std::pair<std::string, GgufValue>>& metadata,
           std::vector<TensorView> headers);

  const std::string& path() const { return path_; }
  // Tensors in file order.
  const std::vector<TensorView>& tensors() const { return tensors_; }
  const TensorView* find(const std::string& name) const;

  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  bool has(const std::string& key) const { return metadata_.contains(key); }
  // Typed reads. FormatError naming file and key if it is missing or of another type; the _or forms
  // give the default where it is missing.
  const std::string& text(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t low, int64_t high) const;
  // An F32 as the shortest decimal that rounds to it: 1e-05, not 9.999999747e-06.
  double number(const std::string& key) const;
  bool boolean(const std::string& key) const;
  const std::vector<std::string>& texts(const std::string& key) const;
  std::vector<int64_t> integers(const std::string& key) const;
  std::vector<float> numbers(const std::string& key) const;
  std::string bytes(const std::string& key) const;  // of an array of U8 or I8
  std::string text_or(const std::string& key, const std::string& otherwise) const;
  int64_t integer_or(const std::string& key, int64_t low, int64_t high, int64_t otherwise) const;
  double number_or(const std::string& key, double otherwise) const;
  bool boolean_or(const std::string& key, bool otherwise) const;

 private:
  // Adds the tensors of one file and gives its metadata.
  void read_part(const std::string& path, std::map<std::string, GgufValue>& metadata);
  void read_other_parts(int64_t count);

  std::string path_;
  std::map<std::string, GgufValue> metadata_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string, size_t> index_;  // names to places in tensors_
};

// How wide a metadata integer is stored when written; int64_t and uint64_t values take the 32-bit
// types where they fit, as llama.cpp's own files do.
class GgufWriter {
 public:
  GgufWriter(const std::string& path,
             const std::vector<std::pair<std::string, GgufValue>>& metadata,
             std::vector<TensorView> headers);  // bytes of the headers are not read
  ~GgufWriter();
  void write(const std::string& name, std::span<const std::byte> bytes);
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qlora::io

// safetensors files (the format in huggingface/safetensors' README): named tensors behind a JSON
// header. The reader maps the file and believes nothing in its header; the writer streams, so that
// one tensor at a time is in memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/tensor_file.h"

namespace qlora::io {

// One file, mapped. FormatError naming file, tensor and offsets if the header is truncated, lies
// about sizes, leaves gaps or overlaps, or names a dtype that is not in DType; IoError if it cannot
// be read.
TensorFile read_safetensors(const std::string& path);

// What the header must say of a tensor before its bytes are there.
struct TensorHeader {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

// How many bytes it will have.
size_t bytes_of(const TensorHeader& tensor);

class SafetensorsWriter {
 public:
  // Writes the header of all tensors, in this order. IoError as for every write (with the path and
  // what the system says, "no space left" included).
  SafetensorsWriter(const std::string& path, std::vector<TensorHeader> tensors,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  // The bytes of the next tensor; Error if `name` is not the next or the size is wrong.
  void write(const std::string& name, std::span<const std::byte> bytes);
  // Flushes to disk (fsync) and closes; Error if tensors are missing.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace qlora::io

// Tensors whose number and sizes are not known beforehand, on their way to a safetensors file: they
// go to a scratch file as they come, and from there behind their header.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "io/output_file.h"
#include "io/safetensors.h"

namespace qlora::exporting {

class ScratchTensors {
 public:
  // `path`: of the scratch file, which is there from the first tensor on until they are moved.
  explicit ScratchTensors(std::string path) : path_(std::move(path)) {}
  ~ScratchTensors();
  ScratchTensors(const ScratchTensors&) = delete;
  ScratchTensors& operator=(const ScratchTensors&) = delete;

  // The next one, contiguous and on the CPU. IoError.
  void add(const std::string& name, const at::Tensor& stored);
  bool empty() const { return headers_.empty(); }
  // Moves them to the safetensors file `path`; gives their names. `purpose` is for progress and the
  // message when the disk is too small. IoError.
  std::vector<std::string> move_to(const std::string& path, const std::string& purpose);

 private:
  std::string path_;
  std::unique_ptr<io::OutputFile> file_;
  std::vector<io::TensorHeader> headers_;
};

}  // namespace qlora::exporting

// Reads and writes model files for io_files.py, with nothing but the reader, the writer and the
// decoder in between.
//
//   dequantize TYPE INPUT OUTPUT        raw blocks of a type (Q4_0, ...) to raw fp32
//   gguf_tensors FILE.gguf FOLDER       each tensor as fp32 to FOLDER/<index>.f32, names to stdout
//   copy_gguf FILE.gguf OUTPUT          through our reader and our writer
//   copy_safetensors FILE OUTPUT        through our reader and our writer
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/gguf.h"
#include "io/output_file.h"
#include "io/read_file.h"
#include "io/safetensors.h"
#include "quant/gguf/gguf_blocks.h"

namespace {

using namespace qlora;      // NOLINT
using namespace qlora::io;  // NOLINT

void write_decoded(DType dtype, std::span<const std::byte> bytes, const std::string& path) {
  const int64_t elements =
      static_cast<int64_t>(bytes.size()) / bytes_per_block(dtype) * elements_per_block(dtype);
  std::vector<float> values(static_cast<size_t>(elements));
  quant::dequantize_gguf_blocks(dtype, bytes.data(), elements, values.data());
  OutputFile file(path);
  file.write(std::as_bytes(std::span(values)));
  file.finish();
}

DType type_named(const std::string& name) {
  for (int i = 0; i <= static_cast<int>(DType::kMXFP4); ++i)
    if (dtype_name(static_cast<DType>(i)) == name) return static_cast<DType>(i);
  fail<ConfigError>("there is no type {}", name);
}

void gguf_tensors(const std::string& path, const std::string& folder) {
  const GgufFile file(path);
  size_t index = 0;
  for (const TensorView& tensor : file.tensors()) {
    write_decoded(tensor.dtype, tensor.bytes, fmt::format("{}/{}.f32", folder, index++));
    std::printf("%s\n", tensor.name.c_str());
  }
}

void copy_gguf(const std::string& from, const std::string& to) {
  const GgufFile file(from);
  GgufWriter writer(to, {file.metadata().begin(), file.metadata().end()}, file.tensors());
  for (const TensorView& tensor : file.tensors()) writer.write(tensor.name, tensor.bytes);
  writer.finish();
}

void copy_safetensors(const std::string& from, const std::string& to) {
  const TensorFile file = read_safetensors(from);
  std::vector<TensorHeader> headers;
  for (const TensorView& tensor : file.tensors)
    headers.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(to, headers, file.metadata);
  for (const TensorView& tensor : file.tensors) writer.write(tensor.name, tensor.bytes);
  writer.finish();
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> a(argv + 1, argv + argc);
  try {
    if (a.size() == 4 && a[0] == "dequantize") {
      const std::string bytes = read_bytes(a[2]);
      write_decoded(type_named(a[1]), std::as_bytes(std::span(bytes)), a[3]);
    } else if (a.size() == 3 && a[0] == "gguf_tensors") {
      gguf_tensors(a[1], a[2]);
    } else if (a.size() == 3 && a[0] == "copy_gguf") {
      copy_gguf(a[1], a[2]);
    } else if (a.size() == 3 && a[0] == "copy_safetensors") {
      copy_safetensors(a[1], a[2]);
    } else {
      fail<ConfigError>("usage: dequantize | gguf_tensors | copy_gguf | copy_safetensors");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

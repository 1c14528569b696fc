// Tensors of a safetensors file as torch.save writes them: torch_file_of IN.safetensors OUT.bin
#include <fmt/format.h>

#include <exception>
#include <fstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/safetensors.h"
#include "torch_writer.h"

namespace {
namespace pickle = qlora::test::pickle;
using qlora::io::DType;

std::string storage_type(DType type) {
  switch (type) {
    case DType::kF32:
      return "FloatStorage";
    case DType::kBF16:
      return "BFloat16Storage";
    case DType::kF16:
      return "HalfStorage";
    default:
      qlora::fail<qlora::Error>("no storage is known for {}", qlora::io::dtype_name(type));
  }
}

std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t i = shape.size(); i > 1; --i) strides[i - 2] = strides[i - 1] * shape[i - 1];
  return strides;
}

void write(const std::string& from, const std::string& to) {
  pickle::Items items;
  std::vector<std::string> storages;
  for (const qlora::io::TensorView& view : qlora::io::read_safetensors(from).tensors) {
    const std::string storage = pickle::storage(
        storage_type(view.dtype), std::to_string(storages.size()), view.num_elements());
    items.emplace_back(view.name, pickle::tensor(storage, 0, view.shape, row_major(view.shape)));
    storages.emplace_back(reinterpret_cast<const char*>(view.bytes.data()), view.bytes.size());
  }
  std::ofstream(to, std::ios::binary)
      << qlora::test::torch_file(pickle::whole(pickle::dict(items)), storages);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    qlora::check(argc == 3, "usage: torch_file_of IN.safetensors OUT.bin");
    write(argv[1], argv[2]);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "torch_file_of: {}\n", error.what());
    return 1;
  }
}

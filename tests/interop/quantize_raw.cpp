// Runs our quantizers on raw element files for bitsandbytes_nf4.py: one job a line of stdin,
// answered by a line. On a GPU with `interop_quantize cuda`.
//
//   four_bit INPUT DTYPE nf4|fp4 BLOCK_SIZE plain|double OUTPUT_DTYPE PREFIX
//     writes PREFIX.packed, PREFIX.absmax (or .codes .nested_absmax .offset .map) and
//     PREFIX.restored
//   blockwise8 INPUT DTYPE signed|unsigned|MAP_FILE BLOCK_SIZE PREFIX
//     writes PREFIX.codes, PREFIX.absmax, PREFIX.map, PREFIX.restored (fp32)
//   int8_rows INPUT DTYPE COLUMNS THRESHOLD PREFIX
//     writes PREFIX.codes, PREFIX.absmax and PREFIX.outliers (int64) of an activation
//   int8_linear INPUT DTYPE COLUMNS WEIGHT THRESHOLD PREFIX
//     quantizes the weight (same dtype and columns) and writes PREFIX.codes, PREFIX.absmax,
//     PREFIX.y
#include <ATen/ATen.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "base/stopwatch.h"
#include "quant/blockwise8/blockwise8.h"
#include "quant/int8/int8.h"
#include "quant/nf4/nf4.h"

namespace {

using namespace qlora;         // NOLINT
using namespace qlora::quant;  // NOLINT

c10::Device device = at::kCPU;

at::ScalarType dtype_of(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  fail<ConfigError>("dtype must be float32, bfloat16 or float16, got '{}'", name);
}

at::Tensor read(const std::string& path, at::ScalarType dtype) {
  std::ifstream file(path, std::ios::binary);
  check(file.good(), "cannot read {}", path);
  const std::vector<char> bytes(std::istreambuf_iterator<char>(file), {});
  at::Tensor tensor =
      at::empty({static_cast<int64_t>(bytes.size() / c10::elementSize(dtype))}, dtype);
  std::copy(bytes.begin(), bytes.end(), static_cast<char*>(tensor.mutable_data_ptr()));
  return tensor.to(device);
}

void write(const std::string& path, const at::Tensor& on_device) {
  const at::Tensor tensor = on_device.cpu();
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.const_data_ptr()),
             static_cast<std::streamsize>(tensor.nbytes()));
  check(file.good(), "cannot write {}", path);
}

void four_bit(const std::vector<std::string>& a) {
  const at::Tensor weight = read(a[1], dtype_of(a[2]));
  const FourBitLayout layout{a[3] == "nf4" ? FourBitCode::kNf4 : FourBitCode::kFp4,
                             std::stoll(a[4])};
  Stopwatch watch;
  const FourBitTensor q = quantize_four_bit(weight, layout, a[5] == "double");
  const double seconds = watch.seconds();
  at::Tensor restored = at::empty({q.num_elements}, weight.options().dtype(dtype_of(a[6])));
  dequantize_range(q, 0, q.num_elements, restored);
  write(a[7] + ".packed", q.packed);
  if (q.scales) {
    write(a[7] + ".codes", q.scales->codes);
    write(a[7] + ".nested_absmax", q.scales->nested_absmax);
    write(a[7] + ".offset", q.scales->offset);
    write(a[7] + ".map", q.scales->map);
  } else {
    write(a[7] + ".absmax", q.absmax);
  }
  write(a[7] + ".restored", restored);
  std::printf("%lld elements quantized in %.4f s\n", static_cast<long long>(q.num_elements),
              seconds);
}

void blockwise8(const std::vector<std::string>& a) {
  const at::Tensor map = a[3] == "signed"     ? map_tensor(signed_dynamic_map(), device)
                         : a[3] == "unsigned" ? map_tensor(unsigned_dynamic_map(), device)
                                              : read(a[3], at::kFloat);
  const Blockwise8Tensor q = quantize_blockwise8(read(a[1], dtype_of(a[2])), map, std::stoll(a[4]));
  at::Tensor restored = at::empty(q.codes.sizes(), q.codes.options().dtype(at::kFloat));
  dequantize_blockwise8(q, restored);
  write(a[5] + ".codes", q.codes);
  write(a[5] + ".absmax", q.absmax);
  write(a[5] + ".map", q.map);
  write(a[5] + ".restored", restored);
  std::printf("%lld elements\n", static_cast<long long>(q.codes.numel()));
}

void int8_rows(const std::vector<std::string>& a) {
  const at::Tensor x = read(a[1], dtype_of(a[2])).view({-1, std::stoll(a[3])});
  const Int8Activation q = quantize_int8_activation(x, std::stod(a[4]));
  write(a[5] + ".codes", q.rows.codes);
  write(a[5] + ".absmax", q.rows.absmax);
  write(a[5] + ".outliers", q.outliers);
  std::printf("%lld outlier columns\n", static_cast<long long>(q.outliers.numel()));
}

void int8_product(const std::vector<std::string>& a) {
  const int64_t columns = std::stoll(a[3]);
  const at::Tensor x = read(a[1], dtype_of(a[2])).view({-1, columns});
  const Int8Tensor weight = quantize_int8(read(a[4], dtype_of(a[2])).view({-1, columns}));
  Stopwatch watch;
  const at::Tensor y = int8_linear(x, weight, std::stod(a[5]));
  std::printf("product in %.5f s\n", watch.seconds());
  write(a[6] + ".codes", weight.codes);
  write(a[6] + ".absmax", weight.absmax);
  write(a[6] + ".y", y);
}
}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1) device = device_from_string(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream words(line);
      const std::vector<std::string> job(std::istream_iterator<std::string>(words), {});
      if (job.size() == 8 && job[0] == "four_bit") {
        four_bit(job);
      } else if (job.size() == 6 && job[0] == "blockwise8") {
        blockwise8(job);
      } else if (job.size() == 6 && job[0] == "int8_rows") {
        int8_rows(job);
      } else if (job.size() == 7 && job[0] == "int8_linear") {
        int8_product(job);
      } else {
        fail<ConfigError>("no such job: '{}'; see the head of tests/interop/quantize_raw.cpp",
                          line);
      }
      std::fflush(stdout);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

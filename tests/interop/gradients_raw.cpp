// Trains a model for bench/peers/gates.py: token ids in, the adapter's gradient at the first step
// out, and whether the frozen base is byte for byte what it was after some steps.
//
//   interop_gradients MODEL QUANTIZATION COMPUTE_DTYPE ADAPTER TOKENS LENGTH STEPS OUTPUT [DEVICE]
//
// COMPUTE_DTYPE is as train.compute_dtype; what is not quantized is held in the same type.
// TOKENS holds int32 ids, LENGTH of them a row, every one supervised; a step takes one row. ADAPTER
// is PEFT's directory. OUTPUT gets the gradients as safetensors under PEFT's names; the hashes of
// the base before and after the last step, and the losses, are printed as JSON.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "base/device.h"
#include "base/error.h"
#include "io/read_file.h"
#include "io/safetensors.h"
#include "lora/adapter_file.h"
#include "model/load.h"
#include "optim/grad_clip.h"
#include "recipes/models/compute_dtype.h"
#include "trainer/train_step.h"

namespace {

using namespace qlora;  // NOLINT

std::vector<data::Example> rows_of(const std::string& bytes, size_t length) {
  std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
  std::memcpy(ids.data(), bytes.data(), ids.size() * sizeof(int32_t));
  std::vector<data::Example> rows;
  for (size_t begin = 0; begin + length <= ids.size(); begin += length) {
    data::Example row;
    row.tokens.assign(ids.data() + begin, ids.data() + begin + length);
    row.supervised.assign(length, 1);
    rows.push_back(std::move(row));
  }
  return rows;
}

void write_gradients(const std::string& path, const lora::AdapterSet& adapters) {
  std::vector<io::TensorHeader> headers;
  for (const lora::AdapterTensor& tensor : adapters.tensors())
    headers.push_back({tensor.name, io::DType::kF32, tensor.gradient.sizes().vec()});
  io::SafetensorsWriter writer(path, headers);
  for (const lora::AdapterTensor& tensor : adapters.tensors()) {
    const at::Tensor gradient = tensor.gradient.cpu();
    writer.write(tensor.name,
                 {static_cast<const std::byte*>(gradient.const_data_ptr()), gradient.nbytes()});
  }
  writer.finish();
}

void run(char** argv, c10::Device device) {
  quant::QuantizationOptions quantization;
  quantization.method = argv[2];
  const std::string wish = argv[3];
  const at::ScalarType compute = recipes::compute_dtype_of(wish, device);
  const std::string adapter = argv[4];
  const int64_t length = std::stoll(argv[6]), steps = std::stoll(argv[7]);
  const auto source = model::open_weights(argv[1]);
  model::ModelOptions options;
  options.dtype = recipes::resolved_compute_dtype(wish, device);
  const auto model = model::load_model(*source, options, quantization, device, compute);
  model->narrow_gates = recipes::keeps_narrow_gates(wish, device);
  lora::AdapterSet adapters(lora::read_adapter_options(adapter), model->groups(), compute, 1);
  lora::read_adapter_tensors(adapter, adapters);
  const std::string hash_before = model->base_hash();

  std::vector<optim::Parameter> parameters;
  for (const lora::AdapterTensor& tensor : adapters.tensors())
    parameters.push_back({.name = tensor.name, .value = tensor.value, .gradient = tensor.gradient});
  const optim::OptimizerOptions optimizer_options;
  const auto optimizer = optim::make_optimizer(optimizer_options, parameters);
  data::LoaderOptions loader_options;
  loader_options.sequence_length = length;
  loader_options.packing = loader_options.shuffle = false;
  data::Loader loader(rows_of(io::read_bytes(argv[5]), static_cast<size_t>(length)),
                      loader_options);
  trainer::TrainState state;
  trainer::TrainJob job{
      *model, adapters, *optimizer, parameters, optim::LrSchedule(optimizer_options, steps),
      loader, state};
  std::vector<double> losses;
  for (; state.step < steps; ++state.step) {
    losses.push_back(trainer::accumulate_gradients(job, loader.next()).value);
    if (state.step == 0) write_gradients(argv[8], adapters);
    optimizer->step(optimizer_options.lr, optim::gradient_norm(adapters.gradients(), 1.0).scale);
    adapters.publish();
  }
  fmt::print("{{\"base_before\":\"{}\",\"base_after\":\"{}\",\"losses\":[{:.6f}]}}\n", hash_before,
             model->base_hash(), fmt::join(losses, ","));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    check(argc == 9 || argc == 10, "eight arguments, or nine with a device");
    run(argv, device_from_string(argc == 10 ? argv[9] : "cpu"));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

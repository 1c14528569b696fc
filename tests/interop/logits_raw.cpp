// Runs a model for logits.py and adapters.py: token ids in, raw fp32 logits out, nothing but
// loading and the forward pass in between.
//
//   interop_logits MODEL ADAPTER QUANTIZATION COMPUTE_DTYPE TOKENS OUTPUT LENGTH...
//
// ADAPTER is a PEFT directory, or - for none. TOKENS holds int32 ids of documents laid end to end,
// LENGTH... their lengths. OUTPUT gets [tokens, vocabulary]. QUANTIZATION: none | as_stored | nf4
// (double quantization, block size 64).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "io/output_file.h"
#include "io/read_file.h"
#include "lora/adapter_file.h"
#include "model/load.h"

namespace {

using namespace qlora;  // NOLINT

model::ForwardInput documents(const std::string& ids, int count, char** lengths) {
  model::ForwardInput input;
  input.tokens.resize(ids.size() / sizeof(int32_t));
  std::memcpy(input.tokens.data(), ids.data(), input.tokens.size() * sizeof(int32_t));
  input.cu_seqlens = {0};
  for (int i = 0; i < count; ++i) {
    const int length = std::stoi(lengths[i]);
    for (int position = 0; position < length; ++position) input.positions.push_back(position);
    input.cu_seqlens.push_back(input.cu_seqlens.back() + length);
  }
  check(input.positions.size() == input.tokens.size(), "the lengths must add up to {} tokens",
        input.tokens.size());
  return input;
}

void run(int argc, char** argv) {
  check(argc > 7, "seven arguments or more");
  at::NoGradGuard no_grad;
  const auto source = model::open_weights(argv[1]);
  quant::QuantizationOptions quantization;
  quantization.method = argv[3];
  const at::ScalarType compute = model::dtype_from_string(argv[4], "COMPUTE_DTYPE");
  model::ModelOptions options;
  options.dtype = argv[4];
  const auto model = model::load_model(*source, options, quantization, at::kCPU, compute);
  std::optional<lora::AdapterSet> adapters;
  if (const std::string adapter = argv[2]; adapter != "-") {
    adapters.emplace(lora::read_adapter_options(adapter), model->groups(), compute, 0);
    lora::read_adapter_tensors(adapter, *adapters);
  }
  const model::ForwardInput input = documents(io::read_bytes(argv[5]), argc - 7, argv + 7);
  const at::Tensor logits = model->logits(model->hidden(input)).contiguous();
  io::OutputFile file(argv[6]);
  file.write({static_cast<const std::byte*>(logits.const_data_ptr()), logits.nbytes()});
  file.finish();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

// Runs a model for logits.py and adapters.py: token ids in, raw fp32 logits out, nothing but
// loading and the forward pass in between.
//
//   interop_logits MODEL ADAPTER QUANTIZATION COMPUTE_DTYPE TOKENS OUTPUT LENGTH...
//
// ADAPTER is a PEFT directory, or - for none. TOKENS holds int32 ids of documents laid end to end,
// LENGTH... their lengths; of a model with an encoder they alternate: a source, what the decoder
// reads. OUTPUT gets [tokens, vocabulary], of the decoder's tokens alone. QUANTIZATION: none |
// as_stored | nf4 (double quantization, block size 64).
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

model::ForwardInput documents(const std::string& ids, int count, char** lengths, bool has_encoder) {
  std::vector<int32_t> tokens(ids.size() / sizeof(int32_t));
  std::memcpy(tokens.data(), ids.data(), tokens.size() * sizeof(int32_t));
  model::ForwardInput input;
  input.cu_seqlens = {0};
  if (has_encoder) input.source.cu_seqlens = {0};
  auto next = tokens.begin();
  for (int i = 0; i < count; ++i) {
    const int length = std::stoi(lengths[i]);
    check(tokens.end() - next >= length, "the lengths must add up to {} tokens", tokens.size());
    const bool is_source = has_encoder && i % 2 == 0;
    std::vector<int32_t>& to = is_source ? input.source.tokens : input.tokens;
    to.insert(to.end(), next, next + length);
    next += length;
    (is_source ? input.source.cu_seqlens : input.cu_seqlens)
        .push_back(static_cast<int32_t>(to.size()));
    for (int position = 0; !is_source && position < length; ++position)
      input.positions.push_back(position);
  }
  check(next == tokens.end(), "the lengths must add up to {} tokens", tokens.size());
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
  const model::ForwardInput input =
      documents(io::read_bytes(argv[5]), argc - 7, argv + 7, source->architecture().has_encoder());
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

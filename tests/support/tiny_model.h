// A random Llama-shaped model of a few thousand weights, built in memory, for tests of everything
// above the files.
#pragma once

#include <memory>

#include "lora/attach.h"
#include "model/causal_lm.h"

namespace qlora::test {

// 2 layers, hidden 32, 4 heads over 2 key-value heads, tied embeddings. Weights are
// functions of `seed`.
std::unique_ptr<model::CausalLm> tiny_model(at::ScalarType compute = at::kFloat, uint64_t seed = 1,
                                            int64_t vocab_size = 61);

// Adapters on all linear layers; with `random_b`, B is random instead of zero, so that every
// gradient is non-zero.
std::unique_ptr<lora::AdapterSet> tiny_adapters(model::CausalLm& model, bool random_b,
                                                double dropout = 0.0);

// Documents of these lengths with pseudo-random tokens, laid end to end.
model::ForwardInput tiny_input(const std::vector<int>& lengths, uint64_t seed = 7);

}  // namespace qlora::test

// A micro-batch as the model takes it.
#pragma once

#include "data/loader.h"
#include "model/causal_lm.h"

namespace qlora::trainer {

inline model::ForwardInput forward_input(const data::MicroBatch& batch) {
  model::ForwardInput input;
  input.tokens = batch.tokens;
  input.positions = batch.positions;
  input.cu_seqlens = batch.cu_seqlens;
  input.source = {batch.encoded, batch.encoded_cu_seqlens};
  return input;
}

}  // namespace qlora::trainer

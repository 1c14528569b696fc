// What a calibration takes beside the activations of its rows, block by block.
#pragma once

#include <cstdint>

#include "model/architecture.h"
#include "quant/gptq/gptq_options.h"

namespace qlora::recipes {

// Bytes, of the largest block.
struct GptqMemory {
  int64_t weights = 0;   // of the block, as they were and quantized
  int64_t rounding = 0;  // of the largest matrix on its way through GPTQ
  int64_t hessians = 0;  // of the inputs that are watched at a time, and the factor of one
  int64_t pass = 0;      // of the longest sequence through the block
  // Kernels and workspaces of libraries, measured.
  static constexpr int64_t kLibraries = 64'000'000;
  int64_t total() const { return weights + rounding + hessians + pass + kLibraries; }
};

// Hessians of many experts are made in several runs, each of no more than this.
constexpr int64_t kMostHessianBytes = int64_t{4} << 30;

// weight_bytes: of an element as the file's weights are loaded; compute_bytes: of one of the
// products; tokens: of the longest sequence.
GptqMemory gptq_memory(const model::Architecture& architecture, const quant::GptqOptions& options,
                       int64_t weight_bytes, int64_t compute_bytes, int64_t tokens);

}  // namespace qlora::recipes

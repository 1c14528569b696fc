// train.compute_dtype: auto is bfloat16 where the processor or GPU multiplies it, else float32 on a
// CPU and float16, with a scaled loss, on a GPU (before Ampere).
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>

namespace qlora::recipes {

// bfloat16, float16 or float32, of a recipe's word for it.
std::string resolved_compute_dtype(const std::string& wish, c10::Device device);
at::ScalarType compute_dtype_of(const std::string& wish, c10::Device device);

// Whether gate and up are kept in bfloat16 for the backward pass where products are float32: with
// `auto`, which chose float32 for want of bfloat16 products. It takes a seventh less memory
// (docs/plan.md) and leaves the loss as it is; an explicit float32 keeps everything in float32.
bool keeps_narrow_gates(const std::string& wish, c10::Device device);

// Why `auto` gave this, or what another choice costs on this device: a sentence, or empty where
// there is nothing to say.
std::string compute_dtype_sentence(const std::string& wish, const std::string& resolved,
                                   c10::Device device);

}  // namespace qlora::recipes

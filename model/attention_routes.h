// By which kernels attention is computed: one list, in the order of preference, for attention()
// itself and for whoever has to know what a pass will need.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include <vector>

#include "model/attention_shape.h"

namespace qlora::model {

struct AttentionCall;

struct AttentionRoute {
  const char* name;
  bool (*supports)(const AttentionShape& shape, at::ScalarType dtype, at::DeviceType device);
  at::Tensor (*run)(const AttentionCall& call);
  bool holds_scores;     // keeps [heads, queries, keys] of each document for the backward pass
  bool copies_to_float;  // copies q, k, v, out and their gradients that are not fp32 to it
};

const std::vector<AttentionRoute>& attention_routes();

// The first route that supports it.
const AttentionRoute& attention_route(const AttentionShape& shape, at::ScalarType dtype,
                                      at::DeviceType device);

}  // namespace qlora::model

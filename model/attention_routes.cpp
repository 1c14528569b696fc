#include "model/attention_routes.h"

#include <algorithm>

#include "base/device.h"
#include "model/composed_attention.h"
#include "model/cpu_attention.h"
#include "model/flash_attention_kernels.h"
#include "model/fused_attention.h"

namespace qlora::model {
namespace {

// Of another text a query sees all keys, whose positions mean nothing to it.
bool has_cpu_kernels(const AttentionShape& shape) {
  return !shape.cross ||
         (!shape.causal && shape.window == 0 && !shape.position_bias && !shape.relative_bias);
}

bool flash_runs(const AttentionShape& shape, at::ScalarType dtype, at::DeviceType device) {
  return device == at::kCPU && dtype == at::kBFloat16 && has_cpu_kernels(shape) &&
         cpu::supports_flash_avx512(shape.head_dim);
}

bool is_on_cpu(const AttentionShape& shape, at::ScalarType dtype, at::DeviceType device) {
  return device == at::kCPU && dtype != at::kDouble && has_cpu_kernels(shape);
}

bool fused_runs(const AttentionShape& shape, at::ScalarType dtype, at::DeviceType device) {
  return device == at::kCUDA && gpu_has_bfloat16() && !shape.relative_bias && !shape.cross &&
         has_fused_attention(shape, dtype);
}

bool always(const AttentionShape&, at::ScalarType, at::DeviceType) { return true; }

}  // namespace

const std::vector<AttentionRoute>& attention_routes() {
  static const std::vector<AttentionRoute> routes = {
      {"AVX-512 BF16", flash_runs, flash_attention_on_cpu, false, false},
      {"fp32", is_on_cpu, float_attention_on_cpu, false, true},
      {"ATen's FlashAttention", fused_runs, fused_attention, false, false},
      {"composed", always, composed_attention, true, true}};
  return routes;
}

const AttentionRoute& attention_route(const AttentionShape& shape, at::ScalarType dtype,
                                      at::DeviceType device) {
  return *std::ranges::find_if(attention_routes(), [&](const AttentionRoute& route) {
    return route.supports(shape, dtype, device);
  });
}

}  // namespace qlora::model

// A quantized weight on its way to a file of another tool: its parts as that tool names them, and
// the values that they stand for. Reading the file gives a weight that is made for products.
#pragma once

#include <functional>
#include <string>

#include "quant/frozen_weight.h"

namespace qlora::quant {

class ExportedWeight final : public FrozenWeight {
 public:
  // decode(): float32 [out, in] on the CPU.
  ExportedWeight(NamedTensors parts, int64_t out, int64_t in, std::string format,
                 std::function<at::Tensor()> decode);

  int64_t out_features() const override { return out_; }
  int64_t in_features() const override { return in_; }
  at::Device device() const override { return at::kCPU; }
  std::string format() const override { return format_; }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override;
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  NamedTensors state() const override { return parts_; }
  std::vector<at::Tensor*> parts() override;

 private:
  NamedTensors parts_;
  int64_t out_, in_;
  std::string format_;
  std::function<at::Tensor()> decode_;
};

}  // namespace qlora::quant

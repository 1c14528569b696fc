// A frozen weight that stays in the blocks of its GGUF file (Q4_1, Q8_0, Q4_K, ...): nothing is
// rounded a second time, and no more memory is taken than the file does. Rows are decoded for each
// product, on the CPU or on a GPU.
#pragma once

#include "io/dtype.h"
#include "quant/frozen_size.h"
#include "quant/frozen_weight.h"

namespace qlora::quant {

// Whether few rows are multiplied straight from blocks of this name ("Q4_1";
// quant/gguf/gguf_product_kernels.h).
bool has_few_rows_kernel(const std::string& type_name);

class GgufWeight final : public FrozenWeight {
 public:
  // blocks: uint8 [out, bytes of a row] or [experts, out, bytes of a row]. `in` is a multiple of
  // the block size.
  GgufWeight(at::Tensor blocks, io::DType type, int64_t in);

  int64_t num_experts() const override { return shape_.experts; }
  int64_t out_features() const override { return shape_.out; }
  int64_t in_features() const override { return shape_.in; }
  at::Device device() const override { return blocks_.device(); }
  std::string format() const override { return io::dtype_name(type_); }
  WeightTraits traits() const override { return {WeightKind::kDecoded, at::kFloat}; }
  int64_t bytes() const override { return static_cast<int64_t>(blocks_.nbytes()); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  // Straight from the blocks of the types that have such a kernel
  // (quant/gguf/gguf_product_kernels.h).
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  NamedTensors state() const override;
  std::vector<at::Tensor*> parts() override { return {&blocks_}; }

 private:
  at::Tensor blocks_;
  io::DType type_;
  WeightShape shape_;
};

// What a GgufWeight [out, in] is and takes; scales are part of the blocks.
FrozenSize gguf_size(io::DType type, int64_t out, int64_t in);

}  // namespace qlora::quant

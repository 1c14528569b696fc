// A weight that training never changes, in whatever format it is stored: dense 16/32 bit, NF4,
// int8, GGUF blocks, GPTQ, ... One interface for all of them. Formats are in formats/;
// make_frozen_weight.cpp makes those that this program quantizes to, prequantized/ those that files
// bring.
//
// Shape [experts, out, in] (weight_shape.h). In a loaded model experts is 1: the matrices of a
// mixture's experts are weights of their own. What makes a product follows from the format's traits
// (quant/products/product_routes.h); most dequantize into a reused buffer and multiply. Autograd
// nodes keep a pointer to the weight, never a 16-bit copy: the backward pass dequantizes again
// (QLoRA section 3).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quant/few_rows/rows_product.h"
#include "quant/int8/int8.h"
#include "quant/products/product_routes.h"
#include "quant/weight_shape.h"
#include "quant/workspace.h"

namespace qlora::quant {

// The tensors of a weight as they lie on disk, by their names within the module ("weight",
// "weight.absmax", "SCB", ...).
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What LLM.int8() multiplies (quant/int8/int8.h).
struct Int8Factor {
  Int8Tensor weight;  // codes [out, in]
  double threshold;
};

class FrozenWeight {
 public:
  virtual ~FrozenWeight() = default;

  virtual int64_t num_experts() const { return 1; }
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  // Where its products are made.
  virtual at::Device device() const = 0;
  // What the format is called in reports: "bfloat16", "nf4", "nf4+dq".
  virtual std::string format() const = 0;
  // By which the code for its products is chosen.
  virtual WeightTraits traits() const = 0;
  // Bytes of everything the weight keeps.
  virtual int64_t bytes() const = 0;

  // Writes rows [begin, end) of an expert to `out`: [end - begin, in], contiguous, bf16, fp16 or
  // fp32.
  virtual void dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                               at::Tensor& out) const = 0;

  // y = x Wᵀ: x [tokens, in] of a floating dtype gives a new [tokens, out] of the same dtype.
  at::Tensor forward(const at::Tensor& x, Workspace& workspace, int64_t expert = 0) const;
  // y (+)= x Wᵀ. The sum with what is in y is taken before it is rounded to y's dtype. One layer by
  // itself; a group's layers: lora/stacked_weights.h.
  virtual void forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate,
                            Workspace& workspace, int64_t expert = 0) const;
  // dx (+)= dy W: dy [tokens, out], dx [tokens, in], same dtype.
  virtual void input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                   Workspace& workspace, int64_t expert = 0) const;
  // Whether these two alone make its products: its rows are not to be had on device() as a whole,
  // so that no product takes them together with those of other layers, or with an adapter's.
  virtual bool multiplies_alone() const { return false; }

  // The narrowest type that holds the rows decoded for a product in `product` without a rounding.
  at::ScalarType decoded_dtype(at::ScalarType product) const {
    return traits().decoded_dtype(product);
  }

  // The rows of an expert as they are stored, where that is as `dtype`; else undefined.
  virtual at::Tensor stored_rows(at::ScalarType dtype, int64_t expert = 0) const;

  // The codes that products of WeightKind::kInt8 multiply; none of other kinds.
  virtual std::optional<Int8Factor> int8_factor(int64_t expert = 0) const;

  // The product of few rows (quant/few_rows/rows_product.h) with an expert on the CPU, where that
  // is the route of products with x; must not outlive the weight.
  virtual std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const;

  // Every stored tensor, for hashing and for writing the base to disk.
  virtual NamedTensors state() const = 0;

  // The tensors that hold the weight's bytes, which may be replaced by equal ones elsewhere
  // (quant/offload/offload.h). Some may be undefined.
  virtual std::vector<at::Tensor*> parts() = 0;

 private:
  // All rows of an expert as `dtype`; may be the stored tensor itself.
  at::Tensor materialize(at::ScalarType dtype, Workspace& workspace, int64_t expert) const;
};

// A weight kept as it is: [out, in] or [experts, out, in], bf16, fp16 or fp32.
class DenseWeight final : public FrozenWeight {
 public:
  explicit DenseWeight(at::Tensor weight);
  int64_t num_experts() const override { return shape_.experts; }
  int64_t out_features() const override { return shape_.out; }
  int64_t in_features() const override { return shape_.in; }
  at::Device device() const override { return weight_.device(); }
  std::string format() const override;
  WeightTraits traits() const override { return {WeightKind::kStored, weight_.scalar_type()}; }
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  at::Tensor stored_rows(at::ScalarType dtype, int64_t expert = 0) const override;
  NamedTensors state() const override { return {{"weight", weight_}}; }
  std::vector<at::Tensor*> parts() override { return {&weight_}; }

 private:
  at::Tensor weight_;
  WeightShape shape_;
};

}  // namespace qlora::quant

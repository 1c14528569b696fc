// A weight that training never changes, in whatever format it is stored: dense 16/32 bit, NF4,
// later int8, GGUF blocks, GPTQ, ... One interface for all of them: a new format is one set of
// files beside this one and a line in make_frozen_weight.cpp.
//
// Shape [experts, out, in] (weight_shape.h); experts is 1 for an ordinary linear layer. The default
// products dequantize into a reused buffer and multiply, or few rows at a time where x has few; a
// format overrides what it does better.
// Autograd nodes keep a pointer to the weight, never a 16-bit copy: the backward pass dequantizes
// again (QLoRA section 3).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quant/int8.h"
#include "quant/rows_product.h"
#include "quant/weight_shape.h"
#include "quant/workspace.h"

namespace qlora::quant {

// The tensors of a weight as they lie on disk, by their names within the module ("weight",
// "weight.absmax", "SCB", ...).
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// What LLM.int8() multiplies (int8.h).
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
  virtual at::Device device() const = 0;
  // What the format is called in reports: "bfloat16", "nf4", "nf4+dq".
  virtual std::string format() const = 0;
  // Bytes of everything the weight keeps.
  virtual int64_t bytes() const = 0;

  // Writes rows [begin, end) of an expert to `out`: [end - begin, in], contiguous, bf16, fp16 or
  // fp32.
  virtual void dequantize_rows(int64_t expert, int64_t begin, int64_t end,
                               at::Tensor& out) const = 0;

  // y = x Wᵀ: x [tokens, in] of a floating dtype gives a new [tokens, out] of the same dtype.
  at::Tensor forward(const at::Tensor& x, Workspace& workspace, int64_t expert = 0) const;
  // y (+)= x Wᵀ. The sum with what is in y is taken before it is rounded to y's dtype.
  virtual void forward_into(const at::Tensor& x, at::Tensor& y, bool accumulate,
                            Workspace& workspace, int64_t expert = 0) const;
  // dx (+)= dy W: dy [tokens, out], dx [tokens, in], same dtype.
  virtual void input_gradient_into(const at::Tensor& dy, at::Tensor& dx, bool accumulate,
                                   Workspace& workspace, int64_t expert = 0) const;

  // The narrowest type that holds the rows decoded for a product in `product` without a rounding.
  virtual at::ScalarType decoded_dtype(at::ScalarType product) const { return product; }
  // The type in which a product with x takes the rows.
  at::ScalarType dtype_for(const at::Tensor& x) const;

  // The rows of an expert as they are stored, where that is as `dtype`; else undefined.
  virtual at::Tensor stored_rows(at::ScalarType dtype, int64_t expert = 0) const;

  // Whether products are those of the dequantized rows, so that weights which share an input may be
  // dequantized one below the other and multiplied at once. False for a format with products of its
  // own, and for one that needs no copy.
  virtual bool multiplies_dequantized() const { return true; }

  // The codes that the format's products multiply as integers, if they do.
  virtual std::optional<Int8Factor> int8_factor(int64_t expert = 0) const;

  // The product of few rows (rows_product.h) with an expert on the CPU; must not outlive the
  // weight. Null if the format has none for such an x.
  virtual std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const;

  // Every stored tensor, for hashing and for writing the base to disk.
  virtual NamedTensors state() const = 0;

 protected:
  // All rows of an expert as `dtype`; may be the stored tensor itself.
  virtual at::Tensor materialize(at::ScalarType dtype, Workspace& workspace, int64_t expert) const;
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
  int64_t bytes() const override { return static_cast<int64_t>(weight_.nbytes()); }
  void dequantize_rows(int64_t expert, int64_t begin, int64_t end, at::Tensor& out) const override;
  at::ScalarType decoded_dtype(at::ScalarType product) const override {
    return product == at::kFloat ? weight_.scalar_type() : product;
  }
  at::Tensor stored_rows(at::ScalarType dtype, int64_t expert = 0) const override;
  bool multiplies_dequantized() const override { return false; }
  std::unique_ptr<RowsProduct> rows_product(const at::Tensor& x, int64_t expert) const override;
  NamedTensors state() const override { return {{"weight", weight_}}; }

 protected:
  at::Tensor materialize(at::ScalarType dtype, Workspace& workspace, int64_t expert) const override;

 private:
  at::Tensor weight_;
  WeightShape shape_;
};

}  // namespace qlora::quant

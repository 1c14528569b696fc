#pragma once

#include <cstdint>

#include "quant/elements/element_type.h"

namespace qlora::model {

// The `active` largest of each token's fp32 logits [tokens, experts], the largest first; among
// equals the lower expert comes first, and NaN before any number.
struct ChooseExperts {
  const float* logits;
  int64_t* chosen;  // [tokens, active]
  int64_t tokens, experts, active;
};

// Matrices of rows are [tokens * active, width], those of tokens [tokens, width], all contiguous.
// Token t's rows are at row_of [tokens, active]: a permutation of all.
struct RowsOfTokens {
  const int64_t* row_of;
  quant::ElementType type;  // of the untyped matrices
  int64_t tokens, active, width;
};

// sum_t = Σ_j rows of t, in fp32 and rounded to `type`; or with weights [tokens, active] the sum of
// weight times row, which is fp32.
struct SumRows {
  RowsOfTokens shape;
  const void* rows;
  const float* weights;  // null for none
  void* sum;
};

// d_rows = weight · d_sum of the row's token, d_weights = <d_sum, row>.
struct SumRowsBackward {
  RowsOfTokens shape;
  const void* rows;  // null without d_weights
  const float* weights;
  const float* d_sum;
  void* d_rows;
  float* d_weights;  // null if not wanted
};

namespace cpu {
void choose_experts(const ChooseExperts& arguments);
void sum_rows(const SumRows& arguments);
void sum_rows_backward(const SumRowsBackward& arguments);
}  // namespace cpu

}  // namespace qlora::model

#pragma once

#include "model/causal_lm.h"

namespace qlora::model {

// Whether a token of a pass with a cache gets the same bits alone and with others, up to
// quant::kFewRows together: so on the CPU where every product is that of few rows
// (quant/few_rows/rows_product.h). LLM.int8() looks for outliers in all rows together, and a matrix
// library may sum in another order. Not for models with an encoder.
bool tokens_are_independent(const CausalLm& model);

}  // namespace qlora::model

// How the time that a token spends in attention grows with the length of its document, for a plan
// of the time. It is
//
//   seconds = a + b keys
//
// where a token sees so many keys on average, and `a` is what a call takes beside its products. A
// plan measures whole layers on as many tokens as a second allows. Where these are few, most of
// their attention is `a`, which does not grow with the keys. So attention is measured once more, by
// itself in one layer, in two documents of different length, which give a and b.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>

#include "model/attention_shape.h"

namespace qlora::trainer {

// Keys that a token of a document of `length` tokens sees, on average.
double mean_keys(const model::AttentionShape& shape, int64_t length);

// Multiplications and additions for such a token forward, each counted: of its query with the keys,
// and of the probabilities with the values. The backward pass takes 2.5 times as many.
double attention_operations(const model::AttentionShape& shape, int64_t length);

// Of the forward and the backward pass: seconds of a token, or how many times as long it takes.
struct AttentionTime {
  double forward = 1, backward = 1;
};

struct AttentionSample {
  int64_t length = 0;     // of the document
  AttentionTime seconds;  // of a token
};

// From documents of `from` to such of `to` tokens, by two samples. At least 1 for from <= to, and
// no more than the keys grow; as much as these where the longer sample takes no longer.
AttentionTime attention_growth(const model::AttentionShape& shape, const AttentionSample& shorter,
                               const AttentionSample& longer, int64_t from, int64_t to);

// The same, measured on `device` in made-up documents, the longer of which takes so many operations
// at most, if it has more than 64 tokens. By the keys alone where attention keeps all its scores.
AttentionTime measure_attention_growth(const model::AttentionShape& shape, int64_t from, int64_t to,
                                       double operations, at::ScalarType compute,
                                       c10::Device device);

}  // namespace qlora::trainer

// Rows of tokens with heads in them, as attention's kernels take them.
#pragma once

#include <cstdint>

namespace qlora::model::cpu {

// Head h of a row is at h / share * step + h % share * head_dim. Heads side by side: a step of
// head_dim.
template <typename T>
struct HeadRows {
  T* data;
  int64_t stride;  // elements from token to token
  int64_t step;    // elements from `share` heads to the next
  int64_t share = 1;
};

// Inlined everywhere: kernels are compiled for several instruction sets.
template <typename T>
[[gnu::always_inline]] inline T* head_of(const HeadRows<T>& rows, int64_t token, int64_t head,
                                         int64_t head_dim) {
  return rows.data + token * rows.stride + head / rows.share * rows.step +
         head % rows.share * head_dim;
}

}  // namespace qlora::model::cpu

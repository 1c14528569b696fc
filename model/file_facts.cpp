#include "model/file_facts.h"

namespace qlora::model {

const ExpertsSpec* first_experts(const Architecture& a) {
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    for (const Branch& branch : a.block(layer).branches)
      if (branch.experts()) return branch.experts();
  return nullptr;
}

int64_t inner_size(const Architecture& a) {
  for (int64_t layer = 0; layer < a.num_layers(); ++layer)
    for (const Branch& branch : a.block(layer).branches)
      if (branch.mlp()) return branch.mlp()->inner;
  return first_experts(a)->inner;
}

int64_t smallest_window(const Architecture& a) {
  int64_t smallest = 0;
  for (const BlockSpec& kind : a.decoder.kinds)
    if (const int64_t window = kind.attention().shape.window;
        window > 0 && (smallest == 0 || window < smallest))
      smallest = window;
  return smallest;
}

}  // namespace qlora::model

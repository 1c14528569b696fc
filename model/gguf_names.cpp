#include "model/gguf_names.h"

#include <fmt/format.h>

#include "base/error.h"

namespace qlora::model {

GgufNames::GgufNames(const Architecture& a) {
  const auto outside = [&](const TensorNames& names, double added) {
    modules_[names.hugging_face] = {.name = names.gguf, .added = added};
  };
  const auto added = [](const NormSpec& norm) {
    return norm.gguf_adds_offset ? norm.rule.offset : 0.0;
  };
  outside(a.embedding.names, 0);
  outside(a.embedding.positions.names, 0);
  outside(a.embedding.norm.names, added(a.embedding.norm));
  outside(a.head.names, 0);
  for (const StackSpec* stack : {&a.encoder, &a.decoder}) {
    outside(stack->final_norm.names, added(stack->final_norm));
    outside({stack->relative_bias.module, stack->relative_bias.gguf_module}, 0);
  }
  for (int64_t layer = 0; layer < a.num_layers(); ++layer) {
    const std::string prefix =
        fmt::format("{}{}.", a.stack_of(layer).prefix.gguf, a.index_in_stack(layer));
    for (const Branch& branch : a.block(layer).branches)
      if (const AttentionSpec* of = branch.attention(); of && of->shape.sinks)
        tensors_[a.module(layer, of->sinks)] = prefix + of->sinks.gguf;
    const AttentionShape& attention = a.block(layer).attention().shape;
    a.block(layer).for_each_norm([&](const NormSpec& norm) {
      modules_[a.module(layer, norm.names)] = {.name = prefix + norm.names.gguf,
                                               .added = added(norm)};
    });
    a.block(layer).for_each_linear([&](const LinearSpec& linear) {
      modules_[a.module(layer, linear.names)] = {
          .name = prefix + linear.names.gguf, .rows = linear.gguf_rows, .attention = attention};
    });
  }
}

GgufTensor GgufNames::of_tensor(const std::string& hugging_face) const {
  if (const auto found = tensors_.find(hugging_face); found != tensors_.end())
    return {.name = found->second};
  const size_t dot = hugging_face.rfind('.');
  const auto found = modules_.find(hugging_face.substr(0, dot));
  if (found == modules_.end() || found->second.name.empty() || found->second.name.ends_with('.'))
    fail<Error>("no GGUF name is known for {}", hugging_face);
  GgufTensor tensor = found->second;
  tensor.name += hugging_face.substr(dot);
  return tensor;
}

}  // namespace qlora::model

#include "export/gguf_parts.h"

#include <ATen/ATen.h>

#include "model/gguf_names.h"
#include "model/gguf_rows.h"

namespace qlora::exporting {
namespace {

using Expert = model::ExpertWeights;

class GgufParts final : public MergedTensors {
 public:
  // `tied`: the model's head is its embedding.
  GgufParts(const model::GgufDescription& description, bool tied, model::WeightSource* original)
      : MergedTensors(at::kFloat, original),
        names_(description.model),
        prefix_(description.model.decoder.prefix.gguf),
        head_(description.model.head.names.hugging_face + ".weight"),
        head_factor_(description.head_factor) {
    if (tied && !description.model.tied_embeddings)
      tied_head_ = description.model.embedding.names.hugging_face + ".weight";
  }

  std::vector<GgufPart> take() { return std::move(parts_); }

 protected:
  void add(const std::string& name, const std::vector<int64_t>& shape, Make make) override {
    if (name == tied_head_) add_head(shape, make);
    if (name == head_) return add_head(shape, make);
    const model::GgufTensor stored = names_.of_tensor(name);
    parts_.push_back({stored.name, shape, [stored, make = std::move(make)] {
                        const at::Tensor value = make();
                        return stored.added != 0 ? value.to(at::kFloat).add(stored.added)
                                                 : model::rows_to_gguf(value, stored);
                      }});
  }

  void add_groups(const std::string& module, const model::NormSpec& spec,
                  const lora::NormWeight& norm) override {
    const std::string name = module + ".weight";
    if (norm.trained) return add_trained(name, norm.trained->value);
    add(name, spec.shape(), [module, name, &spec, &norm, original = original()] {
      if (!original) return norm.frozen;
      if (original->has(name)) return original->read(name, spec.shape(), at::kFloat);
      std::vector<at::Tensor> rows;
      for (int64_t group = 0; group < spec.groups; ++group)
        rows.push_back(original->read(spec.tensor(module, group), {spec.size}, at::kFloat));
      return at::stack(rows);
    });
  }

  void add_experts(int64_t layer, const model::ExpertsSpec& spec,
                   const std::vector<Expert>& experts) override {
    const std::string block = prefix_ + std::to_string(layer) + ".";
    stack(block + "ffn_gate_exps", experts, &Expert::gate_up, {0, spec.inner});
    stack(block + "ffn_up_exps", experts, &Expert::gate_up, {spec.inner, spec.inner});
    stack(block + "ffn_down_exps", experts, &Expert::down, {0, spec.down.out});
  }

 private:
  void add_head(const std::vector<int64_t>& shape, const Make& make) {
    parts_.push_back({names_.of_tensor(head_).name, shape, [make, factor = head_factor_] {
                        return factor == 1 ? make() : make().to(at::kFloat).mul(factor);
                      }});
  }

  struct Rows {
    int64_t first, count;
  };

  // Those rows of a matrix of all experts, [experts, rows, in], and of its biases.
  void stack(const std::string& name, const std::vector<Expert>& experts,
             lora::LinearGroup Expert::*which, Rows rows) {
    const auto of_all = [&experts, which, rows](const auto& of) {
      std::vector<at::Tensor> all;
      for (const Expert& expert : experts)
        all.push_back(of((expert.*which).layers().front()).narrow(0, rows.first, rows.count));
      return at::stack(all);
    };
    const auto count = static_cast<int64_t>(experts.size());
    const lora::LoraLinear& first = (experts.front().*which).layers().front();
    parts_.push_back({name + ".weight",
                      {count, rows.count, first.in_features()},
                      [of_all, original = original()] {
                        return of_all([original](const lora::LoraLinear& linear) {
                          return merged_weight(linear, original);
                        });
                      }});
    if (first.bias.defined())
      parts_.push_back({name + ".bias", {count, rows.count}, [of_all] {
                          return of_all([](const lora::LoraLinear& linear) { return linear.bias; });
                        }});
  }

  model::GgufNames names_;
  std::string prefix_, head_;
  std::string tied_head_ = {};  // the embedding, where the file holds it as the head, too
  double head_factor_;
  std::vector<GgufPart> parts_;
};

}  // namespace

std::vector<GgufPart> gguf_parts(const model::CausalLm& model,
                                 const model::GgufDescription& description,
                                 model::WeightSource* original) {
  GgufParts parts(description, model.embeddings_still_tied(), original);
  parts.visit(model);
  return parts.take();
}

}  // namespace qlora::exporting

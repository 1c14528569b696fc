#include "export/merged.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "export/config_file.h"
#include "export/merged_tensors.h"
#include "export/tokenizer_directory.h"
#include "export/weight_files.h"
#include "io/atomic_write.h"
#include "lora/rows_in_turn.h"
#include "model/expert_tensors.h"
#include "model/file_layout.h"

namespace qlora::exporting {
namespace {
namespace fs = std::filesystem;

// As Hugging Face files name, shape and stack them.
class HuggingFaceParts final : public MergedTensors {
  using Expert = model::ExpertWeights;

 public:
  HuggingFaceParts(const model::CausalLm& model, at::ScalarType dtype,
                   model::WeightSource* original)
      : MergedTensors(dtype, original),
        prefix_(model.architecture().decoder.prefix.hugging_face),
        layout_(model.architecture()) {
    visit(model);
  }

  const std::vector<WeightPart>& parts() const { return parts_; }

 protected:
  void add(const std::string& name, const std::vector<int64_t>& shape, Make make) override {
    if (!layout_.is_by_inputs(name)) {
      parts_.push_back({layout_.in_files(name), shape, dtype(), std::move(make)});
      return;
    }
    parts_.push_back(
        {name, {shape[1], shape[0]}, dtype(), [make = std::move(make)] { return make().t(); }});
  }

  void add_groups(const std::string& module, const model::NormSpec& spec,
                  const lora::NormWeight& norm) override {
    for (int64_t group = 0; group < spec.groups; ++group) {
      const std::string name = spec.tensor(module, group);
      norm.trained ? add_trained(name, norm.trained->value[group])
                   : add_frozen(name, norm.frozen[group]);
    }
  }

  void add_experts(int64_t layer, const model::ExpertsSpec& spec,
                   const std::vector<Expert>& experts) override {
    const std::string block = prefix_ + std::to_string(layer) + ".";
    const model::ExpertFiles& files = spec.files;
    if (files.gate.empty()) {
      stack(block + files.stacked_gate_up, spec, spec.gate_up, experts, &Expert::gate_up);
      stack(block + files.stacked_down, spec, spec.down, experts, &Expert::down);
      return;
    }
    for (size_t e = 0; e < experts.size(); ++e) {
      const auto index = static_cast<int64_t>(e);
      const lora::LoraLinear& gate_up = experts[e].gate_up.layers().front();
      const lora::LoraLinear& down = experts[e].down.layers().front();
      rows(block + model::numbered(files.gate, index), gate_up, 0, spec.inner);
      rows(block + model::numbered(files.up, index), gate_up, spec.inner, spec.inner);
      rows(block + model::numbered(files.down, index), down, 0, spec.down.out);
    }
  }

 private:
  void rows(const std::string& module, const lora::LoraLinear& linear, int64_t first,
            int64_t count) {
    add(module + ".weight", {count, linear.in_features()},
        [&linear, first, count, original = original()] {
          return merged_weight(linear, original).narrow(0, first, count);
        });
  }

  // One matrix of all experts.
  void stack(const std::string& name, const model::ExpertsSpec& spec,
             const model::LinearSpec& matrix, const std::vector<Expert>& weights,
             lora::LinearGroup Expert::*which) {
    const auto count = static_cast<int64_t>(weights.size());
    const bool by_inputs = spec.files.stacked_by_inputs;
    const bool in_turn = by_inputs && which == &Expert::gate_up;
    const auto of_all = [&weights, which, in_turn](const auto& of) {
      std::vector<at::Tensor> all;
      for (const Expert& expert : weights) {
        const at::Tensor tensor = of((expert.*which).layers().front());
        all.push_back(in_turn ? lora::rows_in_turn(tensor) : tensor);
      }
      return at::stack(all);
    };
    add(name,
        by_inputs ? std::vector{count, matrix.in, matrix.out}
                  : std::vector{count, matrix.out, matrix.in},
        [of_all, by_inputs, original = original()] {
          const at::Tensor all = of_all([original](const lora::LoraLinear& linear) {
            return merged_weight(linear, original);
          });
          return by_inputs ? all.transpose(1, 2) : all;
        });
    if (matrix.bias)
      add(name + "_bias", {count, matrix.out},
          [of_all] { return of_all([](const lora::LoraLinear& linear) { return linear.bias; }); });
  }

  std::string prefix_;
  model::FileLayout layout_;
  std::vector<WeightPart> parts_;
};

}  // namespace

void write_merged(const std::string& directory, const model::CausalLm& model,
                  const data::Tokenizer& tokenizer, const data::ChatTemplate* chat_template,
                  const std::string& source, at::ScalarType dtype, model::WeightSource* original,
                  int64_t shard_bytes) {
  at::NoGradGuard no_grad;
  const std::string config = config_text(model.architecture(), tokenizer, source, dtype,
                                         std::nullopt, model.embeddings_still_tied());
  write_weight_files(directory, HuggingFaceParts(model, dtype, original).parts(),
                     "the merged model", shard_bytes);
  write_tokenizer(directory, tokenizer, chat_template);
  io::write_file_atomically((fs::path(directory) / "config.json").string(), config);
}

}  // namespace qlora::exporting

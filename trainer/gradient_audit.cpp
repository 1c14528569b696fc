#include "trainer/gradient_audit.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace qlora::trainer {
namespace {

bool is_watched(const std::string& name) {
  const bool is_factor = name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight");
  const bool is_whole = name.ends_with(".weight") && name.find(".lora_") == std::string::npos;
  return is_factor || is_whole;
}

}  // namespace

GradientAudit::GradientAudit(const lora::AdapterSet& adapters, int64_t updates_before) {
  if (updates_before >= kAuditedUpdates) return;
  for (const lora::AdapterTensor& tensor : adapters.tensors())
    if (is_watched(tensor.name)) unseen_.push_back(tensor);
}

void GradientAudit::look() {
  if (unseen_.empty()) return;
  std::vector<at::Tensor> greatest;
  for (const lora::AdapterTensor& tensor : unseen_) {
    // Without a copy, which of an embedding would be the largest tensor of the run.
    const auto [least, most] = at::aminmax(tensor.gradient);
    greatest.push_back(at::maximum(least.neg(), most));
  }
  const at::Tensor on_host = at::stack(greatest).cpu();  // a GPU is waited for once
  const float* next = on_host.const_data_ptr<float>();
  std::erase_if(unseen_, [&](const lora::AdapterTensor&) { return *next++ > 0; });
}

void GradientAudit::count_update(double learning_rate) {
  if (learning_rate > 0) ++updates_;
}

std::string GradientAudit::missing() const {
  constexpr size_t kNamed = 3;
  if (unseen_.empty()) return "";
  std::string names;
  for (size_t i = 0; i < std::min(kNamed, unseen_.size()); ++i)
    names += (i == 0 ? "" : ", ") + unseen_[i].name;
  if (unseen_.size() > kNamed) names += ", ...";
  const bool one = unseen_.size() == 1;
  return fmt::format("{} trained {} got no gradient in {} updates: {}; {}", unseen_.size(),
                     one ? "tensor" : "tensors", updates_, names,
                     one ? "it is what it was" : "they are what they were");
}

}  // namespace qlora::trainer

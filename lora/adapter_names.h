// Names of tensors in adapter files.
#pragma once

#include <string>

namespace qlora::lora {

// The name PEFT writes, of one that other writers keep: with the wrappers of torch.compile, FSDP
// and DataParallel ("_orig_mod.", "_fsdp_wrapped_module.", "module."), with "base_model.model."
// twice or not at all, with the name of the adapter ("lora_A.default.weight") or the suffix that
// DoRA's vector has in memory. Any other name comes back as it is.
std::string peft_tensor_name(const std::string& stored);

}  // namespace qlora::lora

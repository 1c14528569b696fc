#include "export/load_packages.h"

#include <utility>

namespace qlora::exporting {
namespace {

// By quant_method of a config.json, as the quantizers of transformers 5.23 ask for them;
// accelerate, which most of them need, comes with PEFT. Words that a shell would read are in
// quotes.
constexpr std::pair<const char*, const char*> kPackages[] = {
    {"bitsandbytes", "bitsandbytes"},
    {"gptq", "optimum gptqmodel"},
    {"awq", "gptqmodel"},
    {"auto-round", "\"auto-round>=0.5\""},
    {"intel/auto-round", "\"auto-round>=0.5\""},
    {"compressed-tensors", "\"compressed-tensors>=0.15.0\""},
    {"fp8", "kernels"},
    {"mxfp8", "kernels"},
    {"fbgemm_fp8", "fbgemm-gpu"},
    {"hqq", "hqq"},
    {"aqlm", "\"aqlm[gpu,cpu]\""},
    {"torchao", "torchao"},
    {"eetq", "kernels"},
    {"mxfp4", "kernels triton"},
    {"gguf", "\"gguf>=0.10.0\""},
};

}  // namespace

std::string install_command(const lora::AdapterBase& base) {
  const std::string& method = base.quantization.method;
  std::string by = base.stored_by;
  if (method != "as_stored" && method != "none") by = "bitsandbytes";
  if (by.empty() && base.path.ends_with(".gguf")) by = "gguf";
  std::string command = "pip install torch transformers peft";
  for (const auto& [known, packages] : kPackages)
    if (by == known) command += std::string(" ") + packages;
  return command;
}

}  // namespace qlora::exporting

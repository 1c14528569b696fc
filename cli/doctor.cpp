#include "cli/doctor.h"

#include <fmt/format.h>
#include <torch/version.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/cgroup.h"
#include "base/device.h"

namespace {

using Json = nlohmann::ordered_json;

std::string gigabytes(int64_t bytes) {
  return fmt::format("{:.1f} GB", static_cast<double>(bytes) / 1e9);
}

std::string gpu_facts() {
  if (!qlora::cuda_compiled())
    return "this program was built without CUDA (make cuda builds one with it)";
  if (!qlora::cuda_available()) return "none that is usable; check the driver with nvidia-smi";
  return fmt::format("usable, {} free", gigabytes(qlora::free_memory_bytes(c10::Device("cuda:0"))));
}

// What a container or a batch job lets this process have of the machine.
std::string group_facts() {
  const qlora::GroupLimits limits = qlora::group_limits();
  std::string text;
  if (limits.cores) text += fmt::format("{:.3g} cores", *limits.cores);
  if (limits.free_bytes) {
    const bool both = !text.empty();
    text += fmt::format("{}{} of memory more", both ? ", " : "", gigabytes(*limits.free_bytes));
  }
  return text.empty() ? "none" : text;
}

Json facts() {
  const std::string instructions = qlora::instruction_set();
  const bool fast = instructions == "avx512_bf16";
  return {
      {"qlora", QLORA_VERSION},
      {"LibTorch", TORCH_VERSION},
      {"CPU cores", qlora::usable_cores()},
      {"limits of its groups", group_facts()},
      {"CPU instructions", instructions},
      {"bfloat16 on the CPU",
       fast ? "in hardware" : "emulated: train.compute_dtype float32 may be faster"},
      {"memory free", gigabytes(qlora::free_memory_bytes(c10::Device("cpu")))},
      {"disk free here", gigabytes(static_cast<int64_t>(std::filesystem::space(".").available))},
      {"GPU", gpu_facts()}};
}

}  // namespace

void add_doctor_command(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("doctor", "What this machine and this build can do");
  command->add_flag("--json", *json, "As JSON");
  command->callback([json] {
    const Json all = facts();
    if (*json) {
      fmt::print("{}\n", all.dump(2));
      return;
    }
    for (const auto& [name, value] : all.items())
      fmt::print("{:<20} {}\n", name, value.is_string() ? value.get<std::string>() : value.dump());
  });
}

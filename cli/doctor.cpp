#include "cli/doctor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/version.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/cgroup.h"
#include "base/device.h"
#include "base/instruction_set.h"
#include "base/process_limit.h"
#include "base/terminal.h"
#include "io/json_text.h"
#include "model/families/family.h"
#include "quant/products/product_routes.h"
#include "recipes/models/compute_dtype.h"

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

// What the process itself may have, as a shell or a batch system set it.
std::string own_facts() {
  const auto limit = qlora::process_limit();
  return limit ? fmt::format("{} of memory more (ulimit {})", gigabytes(limit->free_bytes),
                             limit->option)
               : "none";
}

Json facts() {
  Json all = {
      {"qlora", QLORA_VERSION},
      {"LibTorch", TORCH_VERSION},
      {"CPU cores", qlora::usable_cores()},
      {"limits of its groups", group_facts()},
      {"limits of the process", own_facts()},
      {"CPU instructions", qlora::describe_instruction_set()},
      {"compute_dtype auto", qlora::recipes::resolved_compute_dtype("auto", c10::Device("cpu"))},
      {"memory free", gigabytes(qlora::free_memory_bytes(c10::Device("cpu")))},
      {"disk free here", gigabytes(static_cast<int64_t>(std::filesystem::space(".").available))},
      {"GPU", gpu_facts()}};
  for (const auto& [kind, route] : qlora::quant::cpu_product_routes())
    all[kind + " products"] = route;
  return all;
}

// What its GGUF files say they are: the family's own names, or that of the family whose files they
// are written as.
std::vector<std::string> gguf_architectures(const qlora::model::Family& family) {
  if (!family.gguf_architectures.empty() || family.gguf_written_as.empty())
    return family.gguf_architectures;
  return {family.gguf_written_as};
}

// Each with what its files say of themselves.
Json families() {
  Json all;
  for (const qlora::model::Family& family : qlora::model::families())
    all[family.name] = {{"model_type", family.model_types}, {"gguf", gguf_architectures(family)}};
  return all;
}

void print_families() {
  fmt::print("{:<14}{:<26}{}\n", "family", "model_type of config.json",
             "architecture of GGUF files");
  for (const qlora::model::Family& family : qlora::model::families()) {
    const std::vector<std::string> gguf = gguf_architectures(family);
    fmt::print("{:<14}{:<26}{}\n", family.name,
               fmt::format("{}", fmt::join(family.model_types, ", ")),
               gguf.empty() ? "none" : fmt::format("{}", fmt::join(gguf, ", ")));
  }
}

}  // namespace

void add_doctor_command(qlora::cli::Command app) {
  auto json = std::make_shared<bool>(false);
  qlora::cli::Command command =
      app.add_subcommand("doctor", "What this machine and this build can do");
  command.add_flag("--json", *json, "As JSON");
  auto lists_families = std::make_shared<bool>(false);
  command.add_flag("--families", *lists_families, "The model families that can be trained");
  command.callback([json, lists_families] {
    if (*lists_families) {
      *json ? fmt::print("{}\n", qlora::io::json_text(families(), 2)) : print_families();
      return;
    }
    constexpr size_t kColumn = 22;
    const Json all = facts();
    if (*json) {
      fmt::print("{}\n", qlora::io::json_text_in_utf8(all, 2));
      return;
    }
    for (const auto& [name, value] : all.items())
      fmt::print("{}", qlora::list_line(name,
                                        value.is_string() ? value.get<std::string>()
                                                          : qlora::io::json_text_in_utf8(value),
                                        kColumn, qlora::terminal_width(stdout)));
  });
}

#include "model/model_options.h"

#include <algorithm>

#include "base/byte_size.h"
#include "base/faults.h"

namespace qlora::model {
namespace {

// "cuda", "cuda:1", and "1" as accelerate writes it.
bool names_gpu(const std::string& name) {
  if (name == "cuda") return true;
  const std::string index = name.starts_with("cuda:") ? name.substr(5) : name;
  return !index.empty() && std::ranges::all_of(index, [](char c) { return c >= '0' && c <= '9'; });
}

void require_places(const std::map<std::string, std::string>& device_map, Faults& faults) {
  for (const auto& [module, place] : device_map) {
    if (place == "cpu" || place == "disk" || place == "ranks" || names_gpu(place)) continue;
    if (module.empty() && place == "auto") {
      if (device_map.size() == 1) continue;
      faults.add("model.device_map: auto stands for the whole map; leave the other modules out");
      continue;
    }
    faults.add(
        "model.device_map{} must be {}cpu, disk, ranks or the device that computes, such as "
        "cuda:0, "
        "found '{}'",
        module.empty() ? "" : "." + module, module.empty() ? "auto, " : "", place);
  }
}

void require_sizes(const ModelOptions& options, Faults& faults) {
  for (const auto& [device, size] : options.max_memory) {
    if (device != "cpu" && !names_gpu(device))
      faults.add("model.max_memory must name cpu or a GPU, such as cuda:0, found '{}'", device);
    if (!byte_size(size))
      faults.add("model.max_memory.{} must be a size above 0 such as 20GiB (units: {}), found '{}'",
                 device, kSizeUnits, size);
  }
  const auto whole = options.device_map.find("");
  const bool automatic = whole != options.device_map.end() && whole->second == "auto";
  if (!options.max_memory.empty() && !automatic)
    faults.add(
        "model.max_memory is for model.device_map: auto, which fills memory up to it; write that, "
        "or leave max_memory out");
}

}  // namespace

void ModelOptions::validate() const { require_no_faults(*this); }

void ModelOptions::find_faults(Faults& faults) const {
  if (path.empty()) {
    faults.add(
        "model.path must name a Hugging Face directory, a .gguf file or a hub id, found nothing");
  }
  if (dtype != "auto" && dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
    faults.add("model.dtype must be auto, bfloat16, float16 or float32, found '{}'", dtype);
  }
  if (upcast != "none" && upcast != "norms" && upcast != "all")
    faults.add("model.upcast must be none, norms or all, found '{}'", upcast);
  require_places(device_map, faults);
  require_sizes(*this, faults);
}

}  // namespace qlora::model

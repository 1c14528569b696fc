// On which of device, host memory and disk each block's frozen weights lie: what model.device_map
// says. A block lies in one place as a whole; norms, biases, embedding and head stay on the device.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/architecture.h"
#include "model/model_options.h"
#include "quant/offload/offload.h"

namespace qlora::model {

struct Placement {
  std::vector<quant::Home> layers;  // as Architecture::block(); empty: all on the device
  std::string limit;                // by what `auto` chose it: "2000 MB (model.max_memory.cpu)"

  quant::Home of(int64_t layer) const {
    return layers.empty() ? quant::Home::kDevice : layers[static_cast<size_t>(layer)];
  }
  int64_t count(quant::Home home) const;
  bool elsewhere() const { return count(quant::Home::kHost) + count(quant::Home::kDisk) > 0; }
  // "22 of 32 blocks in memory, 10 on disk, for a limit of ..."; empty if all are on the device.
  std::string to_text() const;
};

// Whether model.device_map is `auto`, for whoever knows what fits (trainer/placement_fit.h).
bool is_automatic(const ModelOptions& options);

// By a model.device_map that is not `auto`; host memory is the device of a CPU. ConfigError naming
// the key for a module that the model does not have or that cannot be moved, or a GPU that is not
// `device`.
Placement placement_of(const ModelOptions& options, const Architecture& architecture,
                       c10::Device device);

// What model.max_memory, which ModelOptions::validate() has seen, allows on a device; nothing where
// it does not say.
std::optional<int64_t> memory_limit(const ModelOptions& options, c10::Device device);

}  // namespace qlora::model

// On which of device, host memory and disk frozen weights lie, or that the ranks of a run keep them
// together: what model.device_map says. A block lies in one place as a whole, or in as many parts
// as there are ranks; embedding and head lie elsewhere where the map has them by their own names,
// and norms, biases and learned positions stay on the device.
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
  // The same place where they are tied.
  quant::Home embedding = quant::Home::kDevice, head = quant::Home::kDevice;
  // As `layers`: blocks that stay unquantized in float32 and are multiplied on the CPU
  // (quantization.fp32_cpu_offload); empty: none.
  std::vector<bool> float32 = {};

  quant::Home of(int64_t layer) const {
    return layers.empty() ? quant::Home::kDevice : layers[static_cast<size_t>(layer)];
  }
  bool in_float32(int64_t layer) const {
    return !float32.empty() && float32[static_cast<size_t>(layer)];
  }
  int64_t count(quant::Home home) const;  // of blocks
  // Whether anything does not lie on the device.
  bool elsewhere() const;
  bool on_disk() const;
  // Whether ranks keep blocks together: then a pass of one is a pass of all.
  bool on_ranks() const { return count(quant::Home::kRanks) > 0; }
  // What they would keep together is on the device.
  Placement for_one_rank() const;
  // "22 of 32 blocks on the device, 10 on disk, for a limit of ..., the head in host memory, 10
  // blocks in float32"; empty if all is as on the device.
  std::string to_text() const;
};

// Whether model.device_map is `auto`, for whoever knows what fits (trainer/placement_fit.h).
bool is_automatic(const ModelOptions& options);

// Whether model.device_map has the ranks of a run keep blocks together.
bool shares_blocks(const ModelOptions& options);

// By a model.device_map that is not `auto`; host memory is the device of a CPU. With
// `float32_on_cpu`, blocks that the map has on the cpu or on disk stay in float32, whatever the
// device. ConfigError naming the key for a module that the model does not have or that cannot be
// moved, or a GPU that is not `device`.
Placement placement_of(const ModelOptions& options, const Architecture& architecture,
                       c10::Device device, bool float32_on_cpu = false);

// ConfigError naming the key if model.device_map or model.max_memory of a run that begins on
// `device` is about a GPU that the run does not use. On a GPU that is one of several ranks',
// max_memory may name the others' too.
void require_own_devices(const ModelOptions& options, c10::Device device, int ranks_here = 1);

// The paths of the blocks that a placement has in float32: "model.layers.3".
std::vector<std::string> float32_modules(const Placement& placement,
                                         const Architecture& architecture);

// What model.max_memory, which ModelOptions::validate() has seen, allows on a device; nothing where
// it does not say.
std::optional<int64_t> memory_limit(const ModelOptions& options, c10::Device device);

}  // namespace qlora::model

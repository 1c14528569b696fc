// What the recipe's `model` section decides. Defaults live here and nowhere else.
#pragma once

#include <map>
#include <string>

namespace qlora {
class Faults;
}

namespace qlora::model {

struct ModelOptions {
  std::string
      path;  // Hugging Face directory, .gguf, or a hub id found in the local Hugging Face cache
  std::string name;  // hub name written as base_model_name_or_path; empty: the path
  // Of modules that stay unquantized: bfloat16 | float16 | float32, or auto: as the file has them
  // (WeightSource::dtype).
  std::string dtype = "auto";

  // none: the embedding and head stay in dtype | norms: the same, norms are float32 in any case |
  // all: the embedding and head are float32, as PEFT's prepare_model_for_kbit_training makes them.
  std::string upcast = "none";

  // Where the blocks' weights lie, by module path, the longest that holds a block: cpu (host
  // memory), disk, ranks (each rank of a run has a part), or the device that computes ("cuda:0").
  // {"": "auto"}: as many as fit on the device. Empty: all on the device. model/placement.h reads
  // it.
  std::map<std::string, std::string> device_map = {};
  // With auto: what a run may plan to take of a device's memory, "cuda:0" or "cpu": "20GiB".
  std::map<std::string, std::string> max_memory = {};
  // Of the file of weights on disk that lie in no file yet; empty: the run's directory.
  std::string offload_dir = {};

  // Throws ConfigError naming the key.
  void validate() const;
  // The same, as far as all of it can be told together.
  void find_faults(Faults& faults) const;
};

}  // namespace qlora::model

#include "model/model_options.h"

#include "base/error.h"

namespace qlora::model {

void ModelOptions::validate() const {
  if (path.empty()) {
    throw ConfigError(
        "model.path must name a Hugging Face directory, a .gguf file or a hub id, found nothing");
  }
  if (dtype != "auto" && dtype != "bfloat16" && dtype != "float16" && dtype != "float32") {
    fail<ConfigError>("model.dtype must be auto, bfloat16, float16 or float32, found '{}'", dtype);
  }
  if (upcast != "none" && upcast != "norms" && upcast != "all")
    fail<ConfigError>("model.upcast must be none, norms or all, found '{}'", upcast);
}

}  // namespace qlora::model

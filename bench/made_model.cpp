#include "bench/made_model.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "model/families/family.h"
#include "model/families/llama_like.h"

namespace qlora::bench {
model::Architecture shape_named(const std::string& name) {
  struct Shape {
    const char* name;
    int64_t vocab, hidden, inner, layers, heads, kv_heads, head_dim;
    bool tied;
  };
  constexpr Shape kShapes[] = {{"135m", 49152, 576, 1536, 30, 9, 3, 64, true},
                               {"360m", 49152, 960, 2560, 32, 15, 5, 64, true},
                               {"1.7b", 49152, 2048, 8192, 24, 32, 32, 64, true},
                               {"3b", 128256, 3072, 8192, 28, 24, 8, 128, true},
                               {"8b", 128256, 4096, 14336, 32, 32, 8, 128, false}};
  if (name.ends_with(".json")) {
    const nlohmann::json config = io::read_json_file(name);
    return model::read_architecture(io::JsonNode(config, name));
  }
  for (const Shape& s : kShapes) {
    if (name != s.name) continue;
    model::LlamaSizes config;
    config.vocab_size = s.vocab;
    config.hidden_size = s.hidden;
    config.intermediate_size = s.inner;
    config.num_layers = s.layers;
    config.num_heads = s.heads;
    config.num_kv_heads = s.kv_heads;
    config.head_dim = s.head_dim;
    config.tied_embeddings = s.tied;
    config.max_positions = 131072;
    config.rms_norm_eps = 1e-5;
    config.rotary.rope.theta = 100000.0;
    return model::llama_like("llama", config);
  }
  fail<ConfigError>(
      "--model must be a file, a directory, or one of 135m, 360m, 1.7b, 3b, 8b; found '{}'", name);
}

}  // namespace qlora::bench

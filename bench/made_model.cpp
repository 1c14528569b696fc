#include "bench/made_model.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/json.h"
#include "model/families/family.h"

namespace qlora::bench {
namespace {

// What config.json has of a shape.
nlohmann::json config_named(const std::string& name) {
  struct Shape {
    const char *name, *family;
    int64_t vocab, hidden, inner, layers, heads, kv_heads, head_dim;
    bool tied;
  };
  constexpr Shape kShapes[] = {{"135m", "llama", 49152, 576, 1536, 30, 9, 3, 64, true},
                               {"360m", "llama", 49152, 960, 2560, 32, 15, 5, 64, true},
                               {"0.6b", "qwen3", 151936, 1024, 3072, 28, 16, 8, 128, true},
                               {"1.7b", "llama", 49152, 2048, 8192, 24, 32, 32, 64, true},
                               {"3b", "llama", 128256, 3072, 8192, 28, 24, 8, 128, true},
                               {"8b", "llama", 128256, 4096, 14336, 32, 32, 8, 128, false}};
  for (const Shape& s : kShapes)
    if (name == s.name)
      return {{"model_type", s.family},
              {"vocab_size", s.vocab},
              {"hidden_size", s.hidden},
              {"intermediate_size", s.inner},
              {"num_hidden_layers", s.layers},
              {"num_attention_heads", s.heads},
              {"num_key_value_heads", s.kv_heads},
              {"head_dim", s.head_dim},
              {"tie_word_embeddings", s.tied},
              {"max_position_embeddings", 131072},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 100000.0}};
  fail<ConfigError>(
      "--model must be a file, a directory, or one of 135m, 360m, 0.6b, 1.7b, 3b, 8b; found '{}'",
      name);
}

}  // namespace

model::Architecture shape_named(const std::string& name) {
  const bool is_file = name.ends_with(".json");
  const nlohmann::json config = is_file ? io::read_json_file(name) : config_named(name);
  return model::read_architecture(io::JsonNode(config, is_file ? name : "shape " + name));
}

}  // namespace qlora::bench

// Mistral 7B and its relatives (Jiang et al. 2023): Llama's block whose layers may see a window.
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_config.h"

namespace qlora::model {
namespace {

constexpr int64_t kDefaultWindow = 4096;  // where config.json has no such key

LlamaSizes sizes_of(ConfigReader& config) {
  return read_llama_sizes(config,
                          {.num_kv_heads = 8, .attention_bias_key = "", .max_positions = 131072});
}

Architecture mistral(ConfigReader& config) {
  Architecture a = llama_like("mistral", sizes_of(config));
  give_windows(a, read_window(config, kDefaultWindow), std::vector<bool>(a.num_layers(), true));
  return a;
}

Architecture ministral(ConfigReader& config) {
  Architecture a = llama_like("ministral", sizes_of(config));
  const auto types = read_layer_types(config, a.num_layers());
  const int64_t window =
      types ? read_window(config, kDefaultWindow, *types) : read_window(config, kDefaultWindow);
  give_windows(a, window, types.value_or(std::vector<bool>(a.num_layers(), true)));
  return a;
}

constexpr const char* kBeta = "llama_4_scaling_beta";

LlamaDefaults defaults_of_three() {
  return {.num_kv_heads = 8,
          .head_dim = 128,
          .vocab_size = 131072,
          .intermediate_size = 14336,
          .num_layers = 34,
          .norm_eps = 1e-5,
          .rope = {.theta = 1e6,
                   .read_elsewhere = {kBeta, "max_position_embeddings"},
                   .when_absent =
                       R"({"rope_type": "yarn", "rope_theta": 1e6, "factor": 16,
                           "original_max_position_embeddings": 16384, "beta_fast": 32,
                           "beta_slow": 1, "mscale": 1, "mscale_all_dim": 1,
                           "llama_4_scaling_beta": 0.1})"},
          .attention_bias_key = "",
          .max_positions = 262144};
}

Architecture ministral3(ConfigReader& config) {
  const LlamaDefaults defaults = defaults_of_three();
  Architecture a = llama_like("ministral3", read_llama_sizes(config, defaults));
  keep_rotary_pairs(a);
  const double beta = config.json() ? rope_number(*config.json(), defaults.rope, kBeta, 0)
                                    : config.number({{}, "attention.temperature_scale"}, 0);
  config.note_read({}, {"rope.scaling.yarn_ext_factor"});
  a.query_scaling = {beta, a.rotaries[0].rope.original_max_positions};
  a.decoder.kinds[0].attention().scales_queries = beta != 0;
  give_windows(a, read_window(config, 0), std::vector<bool>(a.num_layers(), true));
  return a;
}

void write_ministral3(ConfigWriter& config, const Architecture& a) {
  config.model("ministral3", "Ministral3ForCausalLM");
  write_llama_sizes(config, a, defaults_of_three());
  ConfigWriter rope = rope_dictionary(a.rotaries.front().rope);
  rope.number(kBeta, a.query_scaling.beta);
  config.object("rope_scaling", rope);
  write_window(config, a);
}

}  // namespace

Family mistral_family() {
  return {
      .name = "mistral", .model_types = {"mistral"}, .read = mistral, .gguf_written_as = "llama"};
}

Family ministral3_family() {
  return {.name = "ministral3",
          .model_types = {"ministral3"},
          .gguf_architectures = {"mistral3"},
          .read = ministral3,
          .write = write_ministral3};
}

Family ministral_family() {
  return {.name = "ministral",
          .model_types = {"ministral"},
          .read = ministral,
          .gguf_written_as = "llama"};
}

}  // namespace qlora::model

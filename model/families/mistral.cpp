// Mistral 7B and its relatives (Jiang et al. 2023): Llama's block whose layers may see a window.
#include "model/families/families.h"
#include "model/families/layer_kinds.h"
#include "model/families/llama_like.h"

namespace qlora::model {
namespace {

constexpr int64_t kDefaultWindow = 4096;  // where config.json has no such key

LlamaSizes sizes_of(ConfigReader& config) {
  return read_llama_sizes(config, {.num_kv_heads = 8, .max_positions = 131072});
}

Architecture mistral(ConfigReader& config) {
  Architecture a = llama_like("mistral", sizes_of(config));
  give_windows(a, read_window(config, kDefaultWindow), std::vector<bool>(a.num_layers(), true));
  return a;
}

Architecture ministral(ConfigReader& config) {
  Architecture a = llama_like("ministral", sizes_of(config));
  const int64_t window = read_window(config, kDefaultWindow);
  const auto types = read_layer_types(config, a.num_layers());
  give_windows(a, window, types.value_or(std::vector<bool>(a.num_layers(), true)));
  return a;
}

}  // namespace

Family mistral_family() { return {.name = "mistral", .model_types = {"mistral"}, .read = mistral}; }

Family ministral_family() {
  return {.name = "ministral", .model_types = {"ministral"}, .read = ministral};
}

}  // namespace qlora::model

#include "model/families/layer_kinds.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/error.h"
#include "base/warn_once.h"

namespace qlora::model {

int64_t read_window(ConfigReader& config, int64_t absent) {
  const ConfigKey key{{"sliding_window"}, "attention.sliding_window"};
  const int64_t least = config.json() ? 1 : 0;  // llama.cpp writes 0 for none
  return config.is_spelled(key) ? config.integer(key, 0, least) : absent;
}

int64_t read_window(ConfigReader& config, int64_t absent, const std::vector<bool>& slides) {
  const int64_t window = read_window(config, absent);
  if (config.json() && window == 0 && std::ranges::count(slides, true) > 0)
    fail<FormatError>("{} must be the size of a window, found null: layers of this model slide",
                      config.place_of({{"sliding_window"}}));
  return window;
}

bool uses_window(ConfigReader& config) {
  config.note_read({"sliding_window"}, {"attention.sliding_window"});
  return config.boolean({{"use_sliding_window"}}, false) && config.json();
}

int64_t read_used_window(ConfigReader& config, int64_t absent) {
  if (!uses_window(config)) return 0;
  const int64_t window = read_window(config, absent);
  if (window == 0)
    log::warning_once(
        "{}: use_sliding_window is true, but sliding_window is null: no layer has a window, as in "
        "transformers",
        config.place());
  return window;
}

std::optional<std::vector<bool>> read_layer_types(ConfigReader& config, int64_t num_layers) {
  const auto types = config.node({{"layer_types"}});
  if (!types) return std::nullopt;
  std::vector<bool> slides;
  for (const io::JsonNode& type : types->elements()) {
    const std::string name = type.as_string();
    if (name != "full_attention" && name != "sliding_attention")
      type.reject("full_attention or sliding_attention");
    slides.push_back(name == "sliding_attention");
  }
  if (static_cast<int64_t>(slides.size()) != num_layers)
    fail<FormatError>("{} must name the kind of each of the {} layers, found {}", types->place(),
                      num_layers, slides.size());
  return slides;
}

std::vector<bool> read_layer_types_or_pattern(ConfigReader& config, int64_t num_layers,
                                              int64_t absent) {
  const ConfigKey key{{"sliding_window_pattern", "_sliding_window_pattern"}};
  const auto types = read_layer_types(config, num_layers);
  const int64_t pattern = config.integer(key, absent, types ? 0 : 1);
  if (types) return *types;
  return layers_where(num_layers, [pattern](int64_t layer) { return (layer + 1) % pattern != 0; });
}

void edit_layers(Architecture& architecture, const std::vector<bool>& changes,
                 const std::function<void(BlockSpec&)>& edit) {
  StackSpec& decoder = architecture.decoder;
  check(changes.size() == decoder.kind_of.size(), "edit_layers: each layer changes or does not");
  const std::vector<BlockSpec> before = std::exchange(decoder.kinds, {});
  const std::vector<uint8_t> kind_before = decoder.kind_of;
  for (size_t kind = 0; kind < before.size(); ++kind)
    for (const bool changed : {false, true}) {
      bool is_used = false;
      for (size_t layer = 0; layer < changes.size(); ++layer)
        if (kind_before[layer] == kind && changes[layer] == changed) {
          decoder.kind_of[layer] = static_cast<uint8_t>(decoder.kinds.size());
          is_used = true;
        }
      if (!is_used) continue;
      decoder.kinds.push_back(before[kind]);
      if (changed) edit(decoder.kinds.back());
    }
}

void edit_each_layer(Architecture& architecture, const std::string& place,
                     const std::function<void(BlockSpec&, int64_t layer)>& edit) {
  StackSpec& decoder = architecture.decoder;
  check(decoder.kinds.size() == 1, "edit_each_layer: the layers must be of one kind before");
  if (decoder.num_layers() > std::numeric_limits<uint8_t>::max() + 1)
    fail<FormatError>(
        "{} makes each layer another kind, of which this version holds 256; found {} layers", place,
        decoder.num_layers());
  decoder.kinds.resize(decoder.kind_of.size(), BlockSpec(decoder.kinds.front()));
  for (int64_t layer = 0; layer < decoder.num_layers(); ++layer) {
    decoder.kind_of[static_cast<size_t>(layer)] = static_cast<uint8_t>(layer);
    edit(decoder.block(layer), layer);
  }
}

void give_windows(Architecture& architecture, int64_t window, const std::vector<bool>& slides) {
  if (window == 0) return;
  edit_layers(architecture, slides,
              [window](BlockSpec& block) { block.attention().shape.window = window; });
}

std::vector<bool> layers_where(int64_t num_layers, const std::function<bool(int64_t)>& pattern) {
  std::vector<bool> all;
  for (int64_t i = 0; i < num_layers; ++i) all.push_back(pattern(i));
  return all;
}

}  // namespace qlora::model

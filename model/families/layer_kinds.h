// Models whose layers are of two kinds: some see a window of the text only, or are not rotated.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "model/architecture.h"
#include "model/families/config_reader.h"

namespace qlora::model {

// sliding_window: 0 where it is null (or 0 in GGUF), `absent` where there is no such key.
int64_t read_window(ConfigReader& config, int64_t absent);
// The same for a family whose layers slide by kind: FormatError where some do and it is null.
int64_t read_window(ConfigReader& config, int64_t absent, const std::vector<bool>& slides);
// use_sliding_window, without which sliding_window means nothing. False for GGUF files.
bool uses_window(ConfigReader& config);
// The window where it is used, else 0; warns where it is used and null.
int64_t read_used_window(ConfigReader& config, int64_t absent);

// layer_types: which layers slide; nullopt where the key is absent. FormatError for a type that is
// neither full_attention nor sliding_attention, or another number of them than layers.
std::optional<std::vector<bool>> read_layer_types(ConfigReader& config, int64_t num_layers);

// The same where the key is there, else all layers but every sliding_window_pattern-th.
std::vector<bool> read_layer_types_or_pattern(ConfigReader& config, int64_t num_layers,
                                              int64_t absent);

// Of each kind, those layers that `changes` has become another one, edited.
void edit_layers(Architecture& architecture, const std::vector<bool>& changes,
                 const std::function<void(BlockSpec&)>& edit);

// Layers of one kind become as many kinds as there are layers. FormatError with `place`, the key
// that wants it, for more than 256.
void edit_each_layer(Architecture& architecture, const std::string& place,
                     const std::function<void(BlockSpec&, int64_t layer)>& edit);

// The layers that slide see `window` keys.
void give_windows(Architecture& architecture, int64_t window, const std::vector<bool>& slides);

// true where pattern(layer).
std::vector<bool> layers_where(int64_t num_layers, const std::function<bool(int64_t)>& pattern);

}  // namespace qlora::model

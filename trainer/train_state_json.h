// TrainState as JSON. Every field is there; reading misses none and tolerates none it does not
// know.
#pragma once

#include <string>

#include "io/json.h"
#include "trainer/train_state.h"

namespace qlora::trainer {

std::string to_json(const TrainState& state);
// FormatError naming file and key.
TrainState train_state_from_json(const io::JsonNode& node);

}  // namespace qlora::trainer

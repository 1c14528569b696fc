// The marks by which data sets say of a message that it is context only. Every tool has its own
// word: weight (OpenAI), train and training (Axolotl), trainable and loss_mask (verl), loss
// (ms-swift), masked (torchtune, the other way round). Some put them on the parts of its content.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// The keys of a message that are marks.
const std::vector<std::string>& turn_mark_keys();

// Whether the message is to be trained by its marks; nothing where it has none, or null ones.
// FormatError that names message `index` if a mark is not true, false, 1 or 0, or two marks
// contradict each other.
std::optional<bool> training_mark(const nlohmann::ordered_json& message, size_t index);

// The marks of the parts of a message's content become the message's own, its loss_mask.
// FormatError that names the part if some parts are to be trained and others not, or the message's
// own marks say otherwise: a message is trained, or left out, as a whole. A part without a mark is
// what the message would be without them.
void take_part_marks(nlohmann::ordered_json& message, size_t index);

// Puts the marks of a row's loss_mask, a list with an entry a message, on the messages. FormatError
// if it has another length, or contradicts a message's own.
void mark_turns(const nlohmann::ordered_json& loss_mask, nlohmann::ordered_json& messages);

}  // namespace qlora::data

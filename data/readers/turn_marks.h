// The marks by which data sets say of a message that it is context only. Every tool has its own
// word: weight (OpenAI), train and training (Axolotl), trainable and loss_mask (verl), loss
// (ms-swift), masked (torchtune, the other way round).
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

// Puts the marks of a row's loss_mask, a list with an entry a message, on the messages. FormatError
// if it has another length, or contradicts a message's own.
void mark_turns(const nlohmann::ordered_json& loss_mask, nlohmann::ordered_json& messages);

}  // namespace qlora::data

// The checks and small repairs that every conversation gets, whichever format it came from, so that
// a template sees one shape: content is a string (arrays of text parts are joined), arguments of
// tool calls are objects (OpenAI writes them as JSON inside a string), tools are an array.
#pragma once

#include <optional>
#include <string>

#include "data/readers/reader.h"

namespace qlora::data {

// Normalises the messages in place. FormatError that names the message if a role is unknown, a user
// or an assistant speaks twice in a row (calls of tools apart), an assistant speaks first, an
// assistant's turn is empty, or there is no assistant turn at all
// (`needs_answer`).
void check_conversation(Conversation& conversation, bool needs_answer = true);

// What a row gives the template besides messages: "chat_template_kwargs", and "tools" in the form
// of tool_calls.h. FormatError if either is something else.
Json template_context(const Row& row);

// The system text that belongs in front of a row's messages: its "system", or else that of its
// dataset; nothing if the messages begin with a system message of their own, or there is no text.
// FormatError if the row has two that differ.
std::optional<std::string> system_to_add(const Row& row, const Json& messages);

// Puts that text in front of the messages, which have been checked.
void add_system(const Row& row, Conversation& conversation);

// A turn of ShareGPT's, {"from", "value"} or as `row` calls these, as a message; FormatError that
// names message `index` if it is none.
Json sharegpt_message(const Json& turn, size_t index, const Row& row, const ReaderOptions& options);

// True for assistant messages that are trained: all but those marked as context only
// (turn_marks.h).
bool is_trained_turn(const Json& message);

}  // namespace qlora::data

// The checks and small repairs that every conversation gets, whichever format it came from, so that
// a template sees one shape: content is a string (arrays of text parts are joined), arguments of
// tool calls are objects (OpenAI writes them as JSON inside a string), tools are an array.
#pragma once

#include <string>

#include "data/readers/reader.h"

namespace qlora::data {

// Normalises the messages in place. FormatError that names the message if a role is unknown, a user
// or an assistant speaks twice in a row, an assistant speaks first, an assistant's turn is empty,
// or there is no assistant turn at all
// (`needs_answer`).
void check_conversation(Conversation& conversation, bool needs_answer = true);

// Tools as an array: given as one, or as JSON inside a string (LLaMA-Factory); empty ones give a
// null value.
Json parse_tools(const Json& tools);

// A turn of ShareGPT's, {"from", "value"} or as `row` calls these, as a message; FormatError that
// names message `index` if it is none.
Json sharegpt_message(const Json& turn, size_t index, const Row& row, const ReaderOptions& options);

// True for assistant messages that are trained: all but those marked as context only
// (turn_marks.h).
bool is_trained_turn(const Json& message);

}  // namespace qlora::data

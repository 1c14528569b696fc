// Calls of tools, their results and their descriptions, in the one form that chat templates know:
//
//   {"role": "assistant", "content": "", "tool_calls": [
//     {"id": "...", "type": "function", "function": {"name": "...", "arguments": {...}}}]}
//   {"role": "tool", "tool_call_id": "...", "name": "...", "content": "..."}
//
// Read are also arguments and calls as JSON inside a string (OpenAI, Parquet files), calls without
// "function" around them, OpenAI's earlier function_call and role function, and turns that are
// nothing but a call: role tool_call (ms-swift), function_call (ShareGPT).
#pragma once

#include <cstddef>
#include <string>

#include "data/readers/row.h"

namespace qlora::data {

// Brings a message into that form; its role must be a string. FormatError that names message
// `index` if a call is no object with a function's name.
void normalize_tool_calls(Json& message, size_t index);

// An assistant's message that calls what `value` says: {"name", "arguments"} or a list of them, or
// either as JSON inside a string. FormatError that names message `index` if it is something else.
Json message_of_call(const Json& value, size_t index);

// Tools as an array: given as one, as one description alone, or as JSON inside a string
// (LLaMA-Factory), the whole or each description; empty ones give a null value. FormatError for
// anything else.
Json parse_tools(const Json& tools);

}  // namespace qlora::data

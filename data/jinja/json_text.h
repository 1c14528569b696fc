// JSON in and out of templates.
#pragma once

#include "data/chat_template.h"
#include "data/jinja/callables.h"

namespace qlora::data::jinja {

// Failure for an integer beyond 64 bits or text that is not UTF-8.
Value from_json(Runtime& runtime, const Json& json);

// The filter tojson as transformers defines it: json.dumps(value, ensure_ascii=False, indent,
// separators, sort_keys), and nothing escaped for HTML.
Value to_json(Runtime& runtime, const Value& value, const Arguments& arguments);

}  // namespace qlora::data::jinja

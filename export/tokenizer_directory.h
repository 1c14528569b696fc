// The tokenizer files of an export, with what serving needs to speak as in training: the chat
// template that was trained with, and the token that ends its answers among those at which a
// generation stops.
#pragma once

#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"

namespace qlora::exporting {

// The tokenizer's own files, changed where training used another template (null: none):
//   chat_template.jinja      the template; other places for one are emptied
//   additional_chat_templates/tool_use.jinja
//                            the one that it has for conversations with tools
//   generation_config.json   eos_token_id names the template's end of turn too
//   tokenizer_config.json    eos_token is the end of turn, unless the template writes eos_token or
//                            the tokenizer puts it behind every text
// IoError if one cannot be written whole.
void write_tokenizer(const std::string& directory, const data::Tokenizer& tokenizer,
                     const data::ChatTemplate* chat_template);

// chat_template.jinja and additional_chat_templates/tool_use.jinja alone, and only if they are not
// the tokenizer's own.
void write_other_template(const std::string& directory, const data::Tokenizer& tokenizer,
                          const data::ChatTemplate& chat_template);

}  // namespace qlora::exporting

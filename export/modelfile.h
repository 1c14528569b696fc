// The Modelfile by which Ollama makes a model of a .gguf file beside it: `ollama create NAME -f
// Modelfile`.
#pragma once

#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/tokenizer.h"
#include "data/trained_prompts.h"

namespace qlora::exporting {

struct Modelfile {
  std::string text;
  bool lacks_template = false;  // there is a chat template that TEMPLATE cannot say
  // What Ollama does otherwise than the chat template says: whole sentences in Markdown.
  std::vector<std::string> differences = {};
};

// `from`: the lines that name the files ("FROM ./model.gguf\n"). TEMPLATE is written where the chat
// template (null: there is none) puts each message between fixed texts (conversation_form.h); else
// Ollama looks at the one in the file. SYSTEM is written beside it where the chat template has a
// system message of its own for conversations without one, or conversations were given one in the
// training, then also without TEMPLATE. Every token that ends an answer is a stop; if the chat
// template ends answers with none, the text with which it does.
//
// `trained`: how the rows put their prompts, where that is known. Raw prompts get a TEMPLATE that
// puts nothing in front of them, and a message that conversations were given is SYSTEM in place of
// the template's own.
Modelfile modelfile(const std::string& from, const data::Tokenizer& tokenizer,
                    const data::ChatTemplate* chat_template,
                    const data::TrainedPrompts& trained = {});

}  // namespace qlora::exporting

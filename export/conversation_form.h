// How a chat template puts a conversation together, as far as each message stands between two fixed
// texts: found by rendering a few conversations, and compared with the rendering of others.
#pragma once

#include <optional>
#include <string>

#include "data/chat_template.h"
#include "data/tokenizer.h"

namespace qlora::exporting {

struct ConversationForm {
  // What becomes of a system message at the beginning: it is written; the template leaves it out,
  // or takes none, and it is written in front of the first question, with an empty line between.
  enum class System { kWritten, kLeftOut, kRefused };

  // Before a user's message, the first (of a conversation without a system message) and each later
  // one, and behind it; the same of an assistant's.
  std::string before_first_user, before_user, behind_user, before_answer, behind_answer;
  std::string prompt;  // what an answer is asked for with, at the end
  System system = System::kWritten;
  std::string before_system, behind_system;  // before the first user's message, which follows
  std::string default_system;  // the message that stands where a conversation has none; empty: none
  bool trims = false;          // white space at the ends of messages is not rendered as it is
  bool strips_thoughts = false;  // nor is what stands in <think> in an earlier answer

  // Messages of user and assistant in turn, a user's the last, behind a system message or none.
  std::string render(const data::Json& messages) const;
};

// Without the BOS in front, which whoever serves the model writes. Nothing if the template is of
// another kind, or writes today's date.
std::optional<ConversationForm> conversation_form(const data::ChatTemplate& chat_template,
                                                  const data::Tokenizer& tokenizer);

}  // namespace qlora::exporting

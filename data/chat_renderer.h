// The one place that turns messages into a prompt: training masks, evaluation, generation and chat
// all come through here, so that none of them can see another text than the rest.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/chat_template.h"
#include "data/prompt_encoder.h"
#include "data/readers/reader.h"
#include "data/turns.h"

namespace qlora::data {

// The date that Llama 3's templates fall back to where they cannot ask for today's.
constexpr const char* kDateString = "26 Jul 2024";

// Which of a conversation's trained turns.
enum class Answers { kAll, kLast };

class ChatRenderer {
 public:
  // Both must outlive the renderer.
  ChatRenderer(const ChatTemplate& chat_template, const Tokenizer& tokenizer);

  // The text of the messages with the tokenizer's special tokens (bos_token, ...) and `context` as
  // variables. Unless `context` sets it, date_string is kDateString, so that prompts do not change
  // overnight and with them the rows of a run that is resumed.
  std::string render(const Json& messages, const Json& context, bool add_generation_prompt) const;

  // Every trained assistant turn, or the last of them alone: rendered behind the messages before
  // it, and with it. FormatError that names the turn if the template does not begin an answer with
  // its own generation prompt, or does not write it.
  std::vector<Turn> turns(const Conversation& conversation, const PromptEncoder& encoder,
                          Answers answers = Answers::kAll) const;

  // Whether the template says by {% generation %} blocks what of the conversation is trained.
  bool marks_generation(const Conversation& conversation) const {
    return template_.marks_generation(conversation.context);
  }
  // The conversation up to its last trained turn, and the spans of the blocks that write trained
  // turns. FormatError if no block writes anything, or if turns are left out (by marks, or all but
  // the last) and there is not one block for each answer.
  ChatTemplate::Marked marked(const Conversation& conversation, Answers answers) const;

  // What stands behind the first `prompt_messages` messages, all of it, as one turn; these are
  // rendered with the generation prompt. FormatError as above.
  Turn turn_behind(const Conversation& conversation, size_t prompt_messages,
                   const PromptEncoder& encoder) const;

  // Does the template read these at all, where the row has tools, or none (of models with a
  // template of its own for tools)? If not, they would be lost without a word.
  bool writes_tools() const;
  bool writes_tool_calls(bool has_tools) const;
  bool writes_tool_results(bool has_tools) const;  // renders a conversation that has one

 private:
  ChatTemplate::Prefixes render_prefixes(const Conversation& conversation,
                                         bool add_generation_prompt,
                                         const std::vector<size_t>& lengths) const;
  Json variables_with(const Json& context) const;
  void require_answer(const Turn& turn, const Conversation& conversation, size_t index,
                      const Tokenizer& tokenizer) const;
  void require_tool_calls(const Conversation& conversation, size_t index) const;

  const ChatTemplate& template_;
  Json variables_ = Json::object();
};

// Ids to generate an answer from: messages (as in a chat row), rendered with the generation prompt.
std::vector<TokenId> conversation_prompt(const Json& messages, const ChatTemplate& chat_template,
                                         const Tokenizer& tokenizer,
                                         const Json& context = Json::object());

// The control tokens that the template writes behind an answer, and behind one of a conversation
// with tools if it has a template of its own for these; each once, none where it writes none.
std::vector<TokenId> ends_of_turn(const Tokenizer& tokenizer, const ChatTemplate& chat_template);

// The ids that end an answer: those of the tokenizer, and the template's ends of turn (null: no
// template), in ascending order.
std::vector<TokenId> answer_end_ids(const Tokenizer& tokenizer, const ChatTemplate* chat_template);

// The names of the built-in templates that end an answer with a special token of the tokenizer.
std::vector<std::string> builtin_templates_that_end(const Tokenizer& tokenizer);

// The template that `choice` (data.chat_template) means: a file, a built-in's name, template text,
// or, if empty, the tokenizer's own, with the one that it has for tools; nullptr if that has none.
// IoError if the file cannot be read.
std::unique_ptr<ChatTemplate> choose_chat_template(const std::string& choice,
                                                   const Tokenizer& tokenizer);
// The template of a recipe's rows, and so of whoever speaks with the model: what data.chat_template
// means (and its text for tools, where an adapter's directory brings one), or, if it is empty and
// prompts are trained in Alpaca's own words alone, the template that writes those.
std::unique_ptr<ChatTemplate> choose_chat_template(const DataOptions& options,
                                                   const Tokenizer& tokenizer);

}  // namespace qlora::data

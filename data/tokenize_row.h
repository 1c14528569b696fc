// Record -> examples: the template, the tokenizer and the mask of one row.
//
//   conversation        in the chat template; assistant turns are trained with their end-of-turn
//                       token (turns.h), and of a template with {% generation %} blocks what these
//                       write (marked_text.h). With train_on: last only the last of the turns that
//                       would be trained. With train_on: all, one example of the whole text in
//                       which everything is trained
//   prompt, completion  the completion and the EOS token behind it are trained
//   text                everything is trained, and the EOS token behind it
//   token ids           as the file says
//   two answers         an example each, the chosen one first; trained is, as in TRL, all that
//                       stands behind the prompt: also what a template writes behind the end of
//                       turn, further turns, and of texts the EOS token
//
// For a model with an encoder the prompt is the source and the completion the labels, each with the
// EOS token behind it; conversations and texts have no source.
// One BOS token stands in front where the tokenizer or the template wants one (prompt_encoder.h).
#pragma once

#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "data/chat_renderer.h"
#include "data/embedded_tokens.h"
#include "data/example.h"
#include "data/prompt_encoder.h"
#include "data/readers/reader.h"

namespace qlora::data {

struct TokenizedRow {
  std::vector<Example> examples;
  std::vector<TokenId> end_of_turns;  // the tokens that end its answers
  bool loses_tools = false;  // it brings tools, or their results, that the template does not write
  bool overrules_marks = false;       // train_on: all trains a turn marked as context only
  bool ignores_marks = false;         // a turn marked to be trained is not an assistant's, or a
                                      // pair's prompt
  bool compares_others = false;       // a turn within a pair's answers is not an assistant's
  bool runs_together = false;         // no white space between its prompt and its completion
  std::set<std::string> unread_keys;  // unread_keys.h
};

class RowTokenizer {
 public:
  // `chat_template` may be null where no row is a conversation. Both must outlive this.
  RowTokenizer(const Tokenizer& tokenizer, const ChatTemplate* chat_template,
               const DataOptions& options, const ModelTokens& model = {});

  // FormatError without file and line, also of a token that the model has no embedding for;
  // ConfigError if the row needs a chat template and there is none.
  TokenizedRow tokenize(const Json& row, const DatasetOptions& dataset) const;

  // The turns of a row, for evaluations that generate the answers: of two the chosen one. None for
  // text and token ids.
  std::vector<Turn> turns(const Json& row, const DatasetOptions& dataset) const;
  // The ids that generation of a turn starts from; FormatError as above.
  std::vector<TokenId> prompt_ids(const Turn& turn) const;

  const PromptEncoder& encoder() const { return encoder_; }

 private:
  Record read(const Json& row, const DatasetOptions& dataset) const;
  void note_marks(const Conversation& conversation, TokenizedRow& row) const;
  static void note_turns(const ConversationPair& pair, TokenizedRow& row);
  const ChatRenderer& renderer() const;
  const std::string& templates_to_set() const;
  const std::string& template_source_for(const Record& record) const;
  TokenizedRow tokenize_record(const Record& record) const;
  bool loses_tools(const Conversation& conversation) const;
  TokenizedRow tokenize_conversation(const Conversation& conversation) const;
  void tokenize_answers(const Conversation& conversation, TokenizedRow& row) const;
  TokenizedRow tokenize_completion(const PromptCompletion& pair) const;
  TokenizedRow tokenize_ids(const TokenRow& record) const;
  void append_eos(TokenizedRow& row) const;
  TokenizedRow tokenize_answers(const TextPair& pair) const;
  TokenizedRow tokenize_answers(const ConversationPair& pair) const;
  void append_answer(Turn turn, Side side, TokenizedRow& row) const;
  // Of a model with an encoder.
  TokenizedRow tokenize_pair(const Record& record) const;
  Example labelled(std::vector<TokenId> source, const std::vector<TokenId>& labels) const;

  PromptEncoder encoder_;
  const ChatTemplate* chat_template_;  // null: none
  std::optional<ChatRenderer> renderer_;
  // Does the template, in a row with tools and in one without?
  bool writes_tool_results_with_tools_ = true, writes_tool_results_without_ = true;
  TrainOn train_on_;
  ModelTokens model_;
  ReaderOptions reader_options_;
  // Of templates_to_set(), which many rows may ask for at once.
  mutable std::once_flag has_templates_to_set_;
  mutable std::string templates_to_set_;
};

}  // namespace qlora::data

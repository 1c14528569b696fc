// Row -> record: what a row of each dataset format means, before any template or tokenizer. One
// file per format; the table in reader.cpp is all that knows them by name.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "data/readers/row.h"

namespace qlora::data {

// Messages in the form that chat templates expect, checked (conversation.h). `context` holds what
// the row gives the template besides: tools, chat_template_kwargs.
struct Conversation {
  Json messages = Json::array();
  Json context = Json::object();
  size_t num_added = 0;  // messages in front that do not stand in the row's list

  // What errors call a message: its index in the row's list.
  size_t index_in_row(size_t index) const { return index < num_added ? 0 : index - num_added; }
};

// A prompt as it is and the text that must follow it; the end-of-text token comes after.
struct PromptCompletion {
  std::string prompt, completion;
};

// Every token is trained; the end-of-text token comes after.
struct PlainText {
  std::string text;
};

// Token ids and mask as the file gives them.
struct TokenRow {
  std::vector<TokenId> tokens;
  std::vector<uint8_t> supervised;
};

// Token ids of a source and of the labels that it is to be answered with, kIgnore where one is not
// trained: of a model with an encoder.
struct LabelledSource {
  std::vector<TokenId> source, labels;
};

// A prompt as it is and two texts that may follow it, of which the first is preferred; the
// end-of-text token comes after each.
struct TextPair {
  std::string prompt, chosen, rejected;
};

// Two conversations with the same first messages, of which the first goes on as is preferred.
struct ConversationPair {
  Conversation chosen, rejected;
  size_t prompt_messages = 0;  // that are the same
};

using Record = std::variant<Conversation, PromptCompletion, PlainText, TokenRow, LabelledSource,
                            TextPair, ConversationPair>;

// What a reader must know besides the row.
struct ReaderOptions {
  bool alpaca_prompt = false;  // data.prompt_style: alpaca
  // Of rows without tools, and of those that have some. false: sharegpt's function_call turns stay
  // text.
  bool template_writes_tool_calls = true, writes_tool_calls_beside_tools = true;
  bool labels_apart = false;  // labels are a text of their own, not a mask of input_ids
};

struct Format {
  std::string name;
  std::vector<std::string> fields;  // the ones that data.train[].fields may map
  Record (*read)(const Row& row, const ReaderOptions& options);
  bool has_turns;  // rows end with an end-of-turn or end-of-text token that must be trained
  bool keeps_message_keys = false;  // further keys of a message reach the template
};

// ConfigError that lists the formats if there is none of that name.
const Format& find_format(const std::string& name, const std::string& key = "data: format");

// Whether its rows are conversations, which may have a system message.
bool has_conversations(const Format& format);

// Readers: FormatError without file and line.
Record read_alpaca(const Row& row, const ReaderOptions& options);  // Stanford Alpaca's fields
Record read_chat(const Row& row, const ReaderOptions& options);    // OpenAI-style messages
Record read_sharegpt(const Row& row,
                     const ReaderOptions& options);  // conversations of from / value
Record read_completion(const Row& row, const ReaderOptions& options);  // prompt, completion
Record read_input_output(const Row& row,
                         const ReaderOptions& options);          // input, output
Record read_text(const Row& row, const ReaderOptions& options);  // text
Record read_pretokenized(const Row& row,
                         const ReaderOptions& options);  // input_ids, labels or mask
Record read_preference(const Row& row,
                       const ReaderOptions& options);  // prompt, chosen, rejected

}  // namespace qlora::data

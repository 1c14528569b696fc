#include "data/tokenize_row.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "data/marked_text.h"
#include "data/readers/turn_marks.h"
#include "data/readers/unread_keys.h"

namespace qlora::data {
namespace {

Example fully_supervised(std::vector<TokenId> tokens) {
  Example example;
  example.supervised.assign(tokens.size(), 1);
  if (!tokens.empty()) example.supervised[0] = 0;
  example.tokens = std::move(tokens);
  return example;
}

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Whether two texts of a script with spaces meet without one, as in "Answer:" and "yes".
bool run_together(const std::string& first, const std::string& second) {
  constexpr std::string_view kEndsOfWords = ".,:;?!";
  return !first.empty() && !second.empty() && is_letter_or_digit(second.front()) &&
         (is_letter_or_digit(first.back()) ||
          kEndsOfWords.find(first.back()) != std::string_view::npos);
}

}  // namespace

RowTokenizer::RowTokenizer(const Tokenizer& tokenizer, const ChatTemplate* chat_template,
                           const DataOptions& options, const ModelTokens& model)
    : encoder_(tokenizer),
      chat_template_(chat_template),
      train_on_(options.train_on),
      model_(model) {
  if (chat_template != nullptr) {
    renderer_.emplace(*chat_template, tokenizer);
    writes_tool_results_with_tools_ = renderer_->writes_tool_results(true);
    writes_tool_results_without_ = chat_template->tool_use_source().empty()
                                       ? writes_tool_results_with_tools_
                                       : renderer_->writes_tool_results(false);
  }
  reader_options_.alpaca_prompt = options.prompt_style == "alpaca";
  reader_options_.labels_apart = model.decoder.has_value();
  reader_options_.template_writes_tool_calls = renderer_ && renderer_->writes_tool_calls(false);
  reader_options_.writes_tool_calls_beside_tools = renderer_ && renderer_->writes_tool_calls(true);
}

// What data.chat_template may be. Every built-in one is compiled for it, once for all rows.
const std::string& RowTokenizer::templates_to_set() const {
  std::call_once(has_templates_to_set_, [&] {
    const std::vector<std::string> names = builtin_templates_that_end(encoder_.tokenizer());
    templates_to_set_ =
        names.empty() ? "a file: no built-in one ends answers with a special token of the model"
                      : fmt::format(
                            "a file, or a built-in one that ends answers with a special "
                            "token of the model: {}",
                            fmt::join(names, ", "));
  });
  return templates_to_set_;
}

const ChatRenderer& RowTokenizer::renderer() const {
  if (!renderer_)
    fail<ConfigError>(
        "the rows are conversations but the model has no chat template; set data.chat_template "
        "({}), or data.prompt_style: alpaca for alpaca rows",
        templates_to_set());
  return *renderer_;
}

Record RowTokenizer::read(const Json& row, const DatasetOptions& dataset) const {
  return find_format(dataset.format).read(Row(row, dataset), reader_options_);
}

void RowTokenizer::append_eos(TokenizedRow& row) const {
  const TokenId end = encoder_.required_eos();
  row.end_of_turns = {end};
  Example& example = row.examples.back();
  if (!example.tokens.empty() && example.tokens.back() == end) return;
  example.tokens.push_back(end);
  example.supervised.push_back(1);
}

void RowTokenizer::note_marks(const Conversation& conversation, TokenizedRow& row) const {
  for (size_t i = 0; i < conversation.messages.size(); ++i) {
    const auto mark = training_mark(conversation.messages[i], i);
    if (!mark) continue;
    row.overrules_marks |= train_on_ == TrainOn::kAll && !*mark;
    row.ignores_marks |=
        train_on_ != TrainOn::kAll && *mark && conversation.messages[i]["role"] != "assistant";
  }
}

// FormatError if a turn behind the prompt, of which all is compared, is marked as context only.
void RowTokenizer::note_turns(const ConversationPair& pair, TokenizedRow& row) {
  for (const auto& [name, conversation] :
       {std::pair("chosen", &pair.chosen), {"rejected", &pair.rejected}}) {
    for (size_t i = 0; i < conversation->messages.size(); ++i) {
      const Json& message = conversation->messages[i];
      const auto mark = training_mark(message, i);
      if (i < pair.prompt_messages) {
        row.ignores_marks |= mark.value_or(false);
        continue;
      }
      if (!mark.value_or(true))
        fail<FormatError>(
            "with '{}': message {} is marked as context only, but of two answers all that stands "
            "behind the prompt is compared; move the turns as far as it into the prompt, if both "
            "answers have them, or remove the row",
            name, i);
      row.compares_others |= message["role"] != "assistant";
    }
  }
}

const std::string& RowTokenizer::template_source_for(const Record& record) const {
  static const std::string none;
  if (chat_template_ == nullptr) return none;
  const auto* conversation = std::get_if<Conversation>(&record);
  if (const auto* pair = std::get_if<ConversationPair>(&record)) conversation = &pair->chosen;
  return conversation ? chat_template_->source_for(conversation->context)
                      : chat_template_->source();
}

bool RowTokenizer::loses_tools(const Conversation& conversation) const {
  const bool has_tools = conversation.context.contains("tools");
  if (has_tools && !renderer().writes_tools()) return true;
  return !(has_tools ? writes_tool_results_with_tools_ : writes_tool_results_without_) &&
         std::ranges::any_of(conversation.messages,
                             [](const Json& message) { return message["role"] == "tool"; });
}

void RowTokenizer::tokenize_answers(const Conversation& conversation, TokenizedRow& row) const {
  const Answers answers = train_on_ == TrainOn::kLast ? Answers::kLast : Answers::kAll;
  if (renderer().marks_generation(conversation)) {
    const ChatTemplate::Marked marked = renderer().marked(conversation, answers);
    row.examples = {tokenize_marked(marked.text, marked.generated, encoder_)};
    const auto text = std::make_shared<const std::string>(marked.text);
    for (const TextSpan& span : marked.generated)
      row.end_of_turns.push_back(make_turn(text, {span.end, ""}, span.begin, encoder_).end_of_turn);
    return;
  }
  const std::vector<Turn> turns = renderer().turns(conversation, encoder_, answers);
  for (const Turn& turn : turns) row.end_of_turns.push_back(turn.end_of_turn);
  row.examples = tokenize_turns(turns, encoder_);
}

TokenizedRow RowTokenizer::tokenize_conversation(const Conversation& conversation) const {
  TokenizedRow row;
  row.loses_tools = loses_tools(conversation);
  note_marks(conversation, row);
  if (train_on_ == TrainOn::kAll) {
    const std::string text = renderer().render(conversation.messages, conversation.context, false);
    row.end_of_turns = {make_turn("", text, encoder_).end_of_turn};
    row.examples = {fully_supervised(encoder_.encode(text))};
    return row;
  }
  tokenize_answers(conversation, row);
  return row;
}

TokenizedRow RowTokenizer::tokenize_completion(const PromptCompletion& pair) const {
  TokenizedRow row;
  row.runs_together = run_together(pair.prompt, pair.completion);
  row.examples =
      tokenize_turns({make_turn(pair.prompt, pair.prompt + pair.completion, encoder_)}, encoder_);
  append_eos(row);
  if (train_on_ == TrainOn::kAll) {
    row.examples = {fully_supervised(std::move(row.examples.back().tokens))};
  }
  return row;
}

void RowTokenizer::append_answer(Turn turn, Side side, TokenizedRow& row) const {
  row.end_of_turns.push_back(turn.end_of_turn);
  turn.end = turn.text.size();
  row.examples.push_back(std::move(tokenize_turns({std::move(turn)}, encoder_).front()));
  row.examples.back().side = side;
}

TokenizedRow RowTokenizer::tokenize_answers(const TextPair& pair) const {
  TokenizedRow row;
  row.runs_together = run_together(pair.prompt, pair.chosen);
  append_answer(make_turn(pair.prompt, pair.prompt + pair.chosen, encoder_), Side::kChosen, row);
  append_eos(row);
  append_answer(make_turn(pair.prompt, pair.prompt + pair.rejected, encoder_), Side::kRejected,
                row);
  append_eos(row);
  return row;
}

TokenizedRow RowTokenizer::tokenize_answers(const ConversationPair& pair) const {
  TokenizedRow row;
  row.loses_tools = loses_tools(pair.chosen);
  note_turns(pair, row);
  append_answer(renderer().turn_behind(pair.chosen, pair.prompt_messages, encoder_), Side::kChosen,
                row);
  append_answer(renderer().turn_behind(pair.rejected, pair.prompt_messages, encoder_),
                Side::kRejected, row);
  return row;
}

TokenizedRow RowTokenizer::tokenize_ids(const TokenRow& record) const {
  const int64_t vocab_size = encoder_.tokenizer().vocab_size();
  for (size_t i = 0; i < record.tokens.size(); ++i) {
    if (record.tokens[i] < vocab_size) continue;
    fail<FormatError>("token {} must be below the tokenizer's vocabulary size {}, found {}", i,
                      vocab_size, record.tokens[i]);
  }
  TokenizedRow row;
  row.examples = {Example{record.tokens, record.supervised}};
  if (!record.supervised.empty()) row.examples.back().supervised[0] = 0;
  return row;
}

Example RowTokenizer::labelled(std::vector<TokenId> source,
                               const std::vector<TokenId>& labels) const {
  Example example{{model_.decoder->start}, {0}};
  for (const TokenId label : labels) {
    example.tokens.push_back(label == kIgnore ? model_.decoder->pad : label);
    example.supervised.push_back(label == kIgnore ? 0 : 1);
  }
  example.encoded = std::move(source);
  return example;
}

TokenizedRow RowTokenizer::tokenize_pair(const Record& record) const {
  TokenizedRow row;
  if (const auto* ids = std::get_if<LabelledSource>(&record)) {
    row.examples = {labelled(ids->source, ids->labels)};
    return row;
  }
  const auto* pair = std::get_if<PromptCompletion>(&record);
  if (!pair)
    throw ConfigError(
        "the model has an encoder, whose rows are a source and its answer; use format "
        "input_output, "
        "completion or pretokenized, or alpaca with data.prompt_style: alpaca; pairs of answers "
        "are not compared by such a model in this version");
  row.end_of_turns = {encoder_.required_eos()};
  row.examples = {
      labelled(encoder_.encode_with_eos(pair->prompt), encoder_.encode_with_eos(pair->completion))};
  return row;
}

TokenizedRow RowTokenizer::tokenize_record(const Record& record) const {
  if (model_.decoder) return tokenize_pair(record);
  if (const auto* conversation = std::get_if<Conversation>(&record)) {
    return tokenize_conversation(*conversation);
  }
  if (const auto* pair = std::get_if<PromptCompletion>(&record)) return tokenize_completion(*pair);
  if (const auto* ids = std::get_if<TokenRow>(&record)) return tokenize_ids(*ids);
  if (const auto* pair = std::get_if<TextPair>(&record)) return tokenize_answers(*pair);
  if (const auto* pair = std::get_if<ConversationPair>(&record)) return tokenize_answers(*pair);
  TokenizedRow row;
  row.examples = {fully_supervised(encoder_.encode(std::get<PlainText>(record).text))};
  append_eos(row);
  return row;
}

TokenizedRow RowTokenizer::tokenize(const Json& json, const DatasetOptions& dataset) const {
  const Record record = read(json, dataset);
  TokenizedRow row = tokenize_record(record);
  if (!row.examples.empty() && row.examples.front().side != Side::kNone &&
      row.examples.front().tokens == row.examples.back().tokens)
    throw FormatError(
        "the chosen and the rejected answer come to the same tokens: there is nothing to prefer; "
        "remove the row");
  for (const Example& example : row.examples)
    for (const auto* ids : {&example.tokens, &example.encoded})
      require_embedded(*ids, encoder_.tokenizer(), model_.embedding_rows);
  row.unread_keys = unread_keys(json, dataset, template_source_for(record));
  return row;
}

std::vector<TokenId> RowTokenizer::prompt_ids(const Turn& turn) const {
  std::vector<TokenId> ids =
      model_.decoder ? encoder_.encode_with_eos(turn.prompt()) : encoder_.encode(turn.prompt());
  require_embedded(ids, encoder_.tokenizer(), model_.embedding_rows);
  return ids;
}

std::vector<Turn> RowTokenizer::turns(const Json& row, const DatasetOptions& dataset) const {
  const Record record = read(row, dataset);
  if (const auto* conversation = std::get_if<Conversation>(&record)) {
    return renderer().turns(*conversation, encoder_);
  }
  if (const auto* pair = std::get_if<PromptCompletion>(&record)) {
    return {make_turn(pair->prompt, pair->prompt + pair->completion, encoder_)};
  }
  if (const auto* pair = std::get_if<TextPair>(&record))
    return {make_turn(pair->prompt, pair->prompt + pair->chosen, encoder_)};
  if (const auto* pair = std::get_if<ConversationPair>(&record))
    return {renderer().turn_behind(pair->chosen, pair->prompt_messages, encoder_)};
  return {};
}

}  // namespace qlora::data

#include "data/chat_renderer.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/path_error.h"
#include "base/utf8.h"
#include "data/readers/conversation.h"
#include "io/file_kind.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::data {
namespace {

// The indices of the turns that are trained.
std::vector<size_t> trained_turns(const Json& messages, Answers answers) {
  std::vector<size_t> trained;
  for (size_t i = 0; i < messages.size(); ++i)
    if (is_trained_turn(messages[i])) trained.push_back(i);
  if (answers == Answers::kLast && trained.size() > 1) trained = {trained.back()};
  return trained;
}

Json first_messages(const Json& messages, size_t count) {
  return Json(messages.begin(), messages.begin() + static_cast<ptrdiff_t>(count));
}

// The last characters of a text, for a message about where two texts part.
std::string tail(const std::string& text) {
  constexpr size_t kShown = 40;
  return io::json_text_in_utf8(
      Json(text.size() > kShown ? "..." + std::string(utf8_end(text, kShown)) : text));
}

std::string head(const std::string& text) {
  constexpr size_t kShown = 40;
  return io::json_text_in_utf8(Json(shortened_utf8(text, kShown)));
}

[[noreturn]] void fail_on_generation_prompt(size_t message, const std::string& prompt,
                                            const std::string& whole) {
  const auto differ = std::mismatch(prompt.begin(), prompt.end(), whole.begin(), whole.end());
  const std::string shared(
      utf8_beginning(prompt, static_cast<size_t>(differ.first - prompt.begin())));
  fail<FormatError>(
      "the chat template writes message {} (assistant) as {} after {}, but its generation prompt "
      "goes on with {}: training on this row would teach an answer that is never asked for; set "
      "data.chat_template to a template whose answers begin with its generation prompt",
      message, head(whole.substr(shared.size())), tail(shared), head(prompt.substr(shared.size())));
}

// Texts of a conversation's beginnings over one base.
class PrefixTexts {
 public:
  PrefixTexts(ChatTemplate::Prefixes of_prompts, ChatTemplate::Prefixes of_wholes)
      : base_(std::make_shared<const std::string>(longest_text(of_wholes))),
        prompts_(move_over(*base_, std::move(of_prompts))),
        wholes_(move_over(*base_, std::move(of_wholes))) {}

  const std::shared_ptr<const std::string>& base() const { return base_; }
  // The text of the first `length` messages; `render` makes it where it is not known.
  template <typename Render>
  SharedText prompt(size_t length, const Render& render) const {
    return find(prompts_, length, render);
  }
  template <typename Render>
  SharedText whole(size_t length, const Render& render) const {
    return find(wholes_, length, render);
  }

 private:
  using Texts = std::map<size_t, SharedText>;

  static std::string longest_text(const ChatTemplate::Prefixes& prefixes) {
    if (prefixes.texts.empty()) return prefixes.base;
    return prefixes.texts.rbegin()->second.over(prefixes.base);
  }

  // The same texts over another base, each sharing as much of it as it can.
  static Texts move_over(std::string_view base, ChatTemplate::Prefixes prefixes) {
    const size_t common = common_prefix(base, prefixes.base);
    for (auto& [length, text] : prefixes.texts) {
      if (text.shared > common) {
        text.rest.insert(0, prefixes.base, common, text.shared - common);
        text.shared = common;
      }
      const size_t more = common_prefix(base.substr(text.shared), text.rest);
      text.rest.erase(0, more);
      text.shared += more;
    }
    return std::move(prefixes.texts);
  }

  template <typename Render>
  SharedText find(const Texts& texts, size_t length, const Render& render) const {
    const auto found = texts.find(length);
    if (found != texts.end()) return found->second;
    const std::string text = render();
    const size_t shared = common_prefix(*base_, text);
    return {shared, text.substr(shared)};
  }

  std::shared_ptr<const std::string> base_;
  Texts prompts_, wholes_;
};

// Over the same base.
bool begins_with(const SharedText& whole, const SharedText& prompt, std::string_view base) {
  if (prompt.size() > whole.size()) return false;
  const size_t shared = std::min(whole.shared, prompt.shared);
  const std::string rest = prompt.behind(shared, base);
  return whole.behind(shared, base).starts_with(rest);
}

// The variables of a conversation with a tool.
Json context_with_tools() {
  const Json function = {{"name", "f"}, {"description", "d"}, {"parameters", Json::object()}};
  Json tools = Json::array();
  tools.push_back(Json{{"type", "function"}, {"function", function}});
  return Json{{"tools", std::move(tools)}};
}

std::string read_template_file(const std::string& path) {
  std::string text = io::read_bytes(path);
  if (const std::string kind = io::text_file_kind(text); !kind.empty())
    fail<FormatError>("{}: the chat template is {}", path, kind);
  return text;
}

}  // namespace

ChatRenderer::ChatRenderer(const ChatTemplate& chat_template, const Tokenizer& tokenizer)
    : template_(chat_template) {
  variables_["date_string"] = kDateString;
  const SpecialTokens& special = tokenizer.special_tokens();
  if (special.bos) variables_["bos_token"] = special.bos->text;
  if (special.eos) variables_["eos_token"] = special.eos->text;
  if (special.unk) variables_["unk_token"] = special.unk->text;
  if (special.pad) variables_["pad_token"] = special.pad->text;
}

std::string ChatRenderer::render(const Json& messages, const Json& context,
                                 bool add_generation_prompt) const {
  return template_.render(messages, variables_with(context), add_generation_prompt);
}

Json ChatRenderer::variables_with(const Json& context) const {
  Json variables = variables_;
  for (const auto& [name, value] : context.items()) variables[name] = value;
  return variables;
}

ChatTemplate::Prefixes ChatRenderer::render_prefixes(const Conversation& conversation,
                                                     bool add_generation_prompt,
                                                     const std::vector<size_t>& lengths) const {
  // One pass costs what rendering two or three prefixes does.
  constexpr size_t kFewest = 3;
  if (lengths.size() < kFewest) return {};
  return template_.render_prefixes(conversation.messages, variables_with(conversation.context),
                                   add_generation_prompt, lengths);
}

std::vector<Turn> ChatRenderer::turns(const Conversation& conversation,
                                      const PromptEncoder& encoder, Answers answers) const {
  const Json& messages = conversation.messages;
  // Numbers of messages before each trained turn, and with it.
  const std::vector<size_t> before = trained_turns(messages, answers);
  std::vector<size_t> with;
  for (const size_t i : before) with.push_back(i + 1);
  const PrefixTexts texts(render_prefixes(conversation, true, before),
                          render_prefixes(conversation, false, with));
  std::optional<ChatTemplate::Beginnings> ready[2];
  const auto render_first = [&](size_t length, bool add_generation_prompt) {
    auto& beginnings = ready[add_generation_prompt ? 1 : 0];
    if (!beginnings)
      beginnings.emplace(template_, messages, variables_with(conversation.context),
                         add_generation_prompt);
    if (auto text = beginnings->text(length)) return *std::move(text);
    return render(first_messages(messages, length), conversation.context, add_generation_prompt);
  };
  std::vector<Turn> turns;
  for (const size_t i : before) {
    const SharedText prompt = texts.prompt(i, [&] { return render_first(i, true); });
    SharedText whole = texts.whole(i + 1, [&] { return render_first(i + 1, false); });
    if (!begins_with(whole, prompt, *texts.base())) {
      fail_on_generation_prompt(conversation.index_in_row(i), prompt.over(*texts.base()),
                                whole.over(*texts.base()));
    }
    turns.push_back(make_turn(texts.base(), std::move(whole), prompt.size(), encoder));
    require_answer(turns.back(), conversation, i, encoder.tokenizer());
  }
  return turns;
}

ChatTemplate::Marked ChatRenderer::marked(const Conversation& conversation, Answers answers) const {
  const Json& messages = conversation.messages;
  const std::vector<size_t> trained = trained_turns(messages, answers);
  const Json first = first_messages(messages, trained.back() + 1);
  ChatTemplate::Marked marked =
      template_.render_marked(first, variables_with(conversation.context));
  for (const size_t i : trained) require_tool_calls(conversation, i);
  if (marked.generated.empty()) {
    throw FormatError(
        "the chat template's {% generation %} blocks write nothing of this conversation, so "
        "that nothing would be trained; set data.chat_template to one that has them around the "
        "answers, or has none");
  }
  std::vector<size_t> assistants;
  for (size_t i = 0; i < first.size(); ++i)
    if (first[i]["role"] == "assistant") assistants.push_back(i);
  if (trained.size() == assistants.size()) return marked;
  if (marked.generated.size() != assistants.size()) {
    fail<FormatError>(
        "some answers are not to be trained (by a mark such as weight: 0, or data.train_on: last), "
        "but the chat template writes {} answers in {} {{% generation %}} blocks, and which block "
        "is whose cannot be told; set data.chat_template to one with a block an answer, or with "
        "none",
        assistants.size(), marked.generated.size());
  }
  std::vector<TextSpan> kept;
  for (size_t i = 0; i < assistants.size(); ++i)
    if (std::ranges::count(trained, assistants[i]) > 0) kept.push_back(marked.generated[i]);
  marked.generated = std::move(kept);
  return marked;
}

Turn ChatRenderer::turn_behind(const Conversation& conversation, size_t prompt_messages,
                               const PromptEncoder& encoder) const {
  const Json& messages = conversation.messages;
  const std::string prompt =
      render(first_messages(messages, prompt_messages), conversation.context, true);
  const std::string whole = render(messages, conversation.context, false);
  if (!whole.starts_with(prompt)) {
    fail_on_generation_prompt(conversation.index_in_row(prompt_messages), prompt, whole);
  }
  Turn turn = make_turn(prompt, whole, encoder);
  require_answer(turn, conversation, prompt_messages, encoder.tokenizer());
  return turn;
}

// FormatError if the template does not write the turn that begins with message `index`.
void ChatRenderer::require_answer(const Turn& turn, const Conversation& conversation, size_t index,
                                  const Tokenizer& tokenizer) const {
  require_tool_calls(conversation, index);
  if (turn.answer(tokenizer).find_first_not_of(" \t\r\n") != std::string::npos) return;
  fail<FormatError>("the chat template writes nothing of message {} (assistant)",
                    conversation.index_in_row(index));
}

void ChatRenderer::require_tool_calls(const Conversation& conversation, size_t index) const {
  if (!conversation.messages[index].contains("tool_calls") ||
      writes_tool_calls(conversation.context.contains("tools")))
    return;
  fail<FormatError>(
      "the chat template does not write the tool_calls of message {} (assistant): it does not know "
      "tool_calls; set data.chat_template to one that does",
      conversation.index_in_row(index));
}

bool ChatRenderer::writes_tools() const {
  return template_.source_for(context_with_tools()).find("tools") != std::string::npos;
}

bool ChatRenderer::writes_tool_calls(bool has_tools) const {
  return template_.source_for(has_tools ? context_with_tools() : Json::object())
             .find("tool_calls") != std::string::npos;
}

bool ChatRenderer::writes_tool_results(bool has_tools) const {
  constexpr const char* kResult = "result-of-the-tool";
  const Json call = {{"id", "call00001"},
                     {"type", "function"},
                     {"function", {{"name", "f"}, {"arguments", Json::object()}}}};
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", "q"}},
       {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({call})}},
       {{"role", "tool"}, {"tool_call_id", "call00001"}, {"name", "f"}, {"content", kResult}},
       {{"role", "assistant"}, {"content", "a"}}});
  // A template for both kinds of rows is asked as it is likeliest to know such a conversation.
  const bool shows_tools = has_tools || template_.tool_use_source().empty();
  try {
    return render(messages, shows_tools ? context_with_tools() : Json::object(), false)
               .find(kResult) != std::string::npos;
  } catch (const FormatError&) {
    return true;  // the template says itself what it does not take
  }
}

std::vector<TokenId> conversation_prompt(const Json& messages, const ChatTemplate& chat_template,
                                         const Tokenizer& tokenizer, const Json& context) {
  Conversation conversation{messages, context};
  check_conversation(conversation, false);
  if (conversation.messages.back()["role"] == "assistant") {
    fail<FormatError>("a prompt must end with a user or tool message, found an assistant's");
  }
  const ChatRenderer renderer(chat_template, tokenizer);
  return PromptEncoder(tokenizer).encode(
      renderer.render(conversation.messages, conversation.context, true));
}

std::vector<TokenId> ends_of_turn(const Tokenizer& tokenizer, const ChatTemplate& chat_template) {
  const ChatRenderer renderer(chat_template, tokenizer);
  const Json messages = Json::array(
      {{{"role", "user"}, {"content", "Hello"}}, {{"role", "assistant"}, {"content", "Hi"}}});
  std::vector<Json> contexts = {Json::object()};
  if (!chat_template.tool_use_source().empty()) contexts.push_back(context_with_tools());
  std::vector<TokenId> ends;
  for (const Json& context : contexts) {
    try {
      const Turn turn = renderer.turns({messages, context}, PromptEncoder(tokenizer)).back();
      if (turn.end_of_turn >= 0 && std::ranges::count(ends, turn.end_of_turn) == 0)
        ends.push_back(turn.end_of_turn);
    } catch (const FormatError&) {
      // a template that such a conversation is not for
    }
  }
  return ends;
}

std::vector<TokenId> answer_end_ids(const Tokenizer& tokenizer, const ChatTemplate* chat_template) {
  std::vector<TokenId> ids = tokenizer.special_tokens().end_of_generation;
  if (chat_template)
    for (const TokenId end : ends_of_turn(tokenizer, *chat_template))
      if (std::ranges::count(ids, end) == 0) ids.push_back(end);
  std::ranges::sort(ids);
  return ids;
}

std::vector<std::string> builtin_templates_that_end(const Tokenizer& tokenizer) {
  std::vector<std::string> names;
  for (const std::string& name : builtin_chat_template_names())
    if (!ends_of_turn(tokenizer, ChatTemplate(builtin_chat_template(name), name)).empty())
      names.push_back(name);
  return names;
}

std::unique_ptr<ChatTemplate> choose_chat_template(const std::string& choice,
                                                   const Tokenizer& tokenizer) {
  if (choice.empty()) {
    if (tokenizer.chat_template().empty()) return nullptr;
    return std::make_unique<ChatTemplate>(tokenizer.chat_template(), "the model's chat template",
                                          tokenizer.tool_use_template());
  }
  const bool is_text =
      choice.find("{{") != std::string::npos || choice.find("{%") != std::string::npos;
  if (is_text) return std::make_unique<ChatTemplate>(choice, "data.chat_template");
  std::error_code status;
  if (std::filesystem::is_regular_file(choice, status))
    return std::make_unique<ChatTemplate>(read_template_file(choice), choice);
  if (status && !is_wrong_path(status.value()))
    fail_on_path(status.value(), "the chat template {} cannot be read", choice);
  return std::make_unique<ChatTemplate>(builtin_chat_template(choice), choice);
}

std::unique_ptr<ChatTemplate> choose_chat_template(const DataOptions& options,
                                                   const Tokenizer& tokenizer) {
  if (options.chat_template.empty() && options.trains_alpaca_prompts())
    return std::make_unique<ChatTemplate>(builtin_chat_template("alpaca"), "data.prompt_style");
  if (!options.chat_template.empty() && !options.tool_use_template.empty())
    return std::make_unique<ChatTemplate>(options.chat_template, "the adapter's chat template",
                                          options.tool_use_template);
  return choose_chat_template(options.chat_template, tokenizer);
}

}  // namespace qlora::data

#include "data/chat_template.h"

#include <atomic>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "data/jinja/json_text.h"
#include "data/jinja/parser.h"
#include "data/jinja/prefixes.h"
#include "data/jinja/source.h"

namespace qlora::data {

namespace {

// The model's thoughts have three names in the wild; as transformers does, a message that has one
// of them gets those that templates read.
Json with_reasoning_fields(const Json& message) {
  if (!message.is_object()) {
    fail<FormatError>("each message must be a JSON object, found {}", message.type_name());
  }
  for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
    const auto found = message.find(name);
    if (found == message.end() || found->is_null()) continue;
    Json named = {{"thinking", *found}};
    for (const auto& [key, value] : message.items()) named[key] = value;
    named["reasoning_content"] = *found;
    return named;
  }
  return message;
}

Json with_reasoning_fields_in_all(const Json& messages) {
  if (!messages.is_array()) {
    fail<FormatError>("messages must be a JSON array, found {}", messages.type_name());
  }
  Json named = Json::array();
  for (const Json& message : messages) named.push_back(with_reasoning_fields(message));
  return named;
}

// As in transformers, where an empty list of tools counts as well.
bool has_tools(const Json& context) {
  if (!context.is_object()) return false;
  const auto tools = context.find("tools");
  return tools != context.end() && !tools->is_null();
}

// All variables but the messages.
void define_variables(jinja::Runtime& runtime, const Json& context, bool add_generation_prompt) {
  jinja::define_globals(runtime);
  jinja::Scope& variables = runtime.globals();
  // As in transformers, these two are always there, if only as none.
  variables.set("tools", jinja::None{});
  variables.set("documents", jinja::None{});
  for (const auto& [name, value] : context.items()) {
    variables.set(name, jinja::from_json(runtime, value));
  }
  variables.set("add_generation_prompt", jinja::Value::boolean(add_generation_prompt));
}

}  // namespace

struct ChatTemplate::Parsed {
  Parsed(const std::string& text, const std::string& name)
      : written(text), source(text, name), tree(jinja::parse(source)) {}
  const std::string written;
  const jinja::Source source;
  const jinja::Tree tree;
  std::atomic<bool> read_clock = false;
};

ChatTemplate::ChatTemplate(const std::string& source, const std::string& name)
    : parsed_(std::make_unique<Parsed>(source, name)) {}
ChatTemplate::ChatTemplate(const std::string& source, const std::string& name,
                           const std::string& tool_use)
    : ChatTemplate(source, name) {
  tool_use_source_ = tool_use;
  if (tool_use.empty()) return;
  try {
    tool_use_ = std::make_unique<Parsed>(tool_use, name + " 'tool_use'");
  } catch (const FormatError& error) {
    tool_use_error_ = error.what();
  }
}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

const std::string& ChatTemplate::source() const { return parsed_->written; }

const std::string& ChatTemplate::tool_use_source() const { return tool_use_source_; }

const std::string& ChatTemplate::source_for(const Json& context) const {
  return tool_use_source_.empty() || !has_tools(context) ? source() : tool_use_source_;
}

ChatTemplate::Parsed& ChatTemplate::parsed_for(const Json& context) const {
  if (tool_use_source_.empty() || !has_tools(context)) return *parsed_;
  if (!tool_use_) throw FormatError(tool_use_error_);
  return *tool_use_;
}

bool ChatTemplate::marks_generation() const { return parsed_->tree.marks_generation; }

bool ChatTemplate::marks_generation(const Json& context) const {
  return parsed_for(context).tree.marks_generation;
}

bool ChatTemplate::has_read_clock() const {
  return parsed_->read_clock || (tool_use_ && tool_use_->read_clock);
}

std::string ChatTemplate::render(const Json& messages, const Json& context,
                                 bool add_generation_prompt) const {
  return render_all(messages, context, add_generation_prompt).text;
}

ChatTemplate::Marked ChatTemplate::render_marked(const Json& messages, const Json& context) const {
  return render_all(messages, context, false);
}

ChatTemplate::Marked ChatTemplate::render_all(const Json& messages, const Json& context,
                                              bool add_generation_prompt) const {
  if (!context.is_object() && !context.is_null()) {
    fail<FormatError>("a template's context must be a JSON object, found {}", context.type_name());
  }
  const Json conversation = with_reasoning_fields_in_all(messages);
  Parsed& parsed = parsed_for(context);
  try {
    jinja::Runtime runtime;
    define_variables(runtime, context, add_generation_prompt);
    runtime.globals().set("messages", jinja::from_json(runtime, conversation));
    jinja::Capture captured(runtime);
    runtime.watch_output();
    jinja::execute_all(parsed.tree.body, runtime, runtime.new_scope(&runtime.globals()));
    if (runtime.read_clock()) parsed.read_clock = true;
    return {captured.take(), runtime.generated()};
  } catch (const jinja::Failure& failure) {
    const size_t offset = failure.offset == jinja::Failure::kNowhere ? 0 : failure.offset;
    parsed.source.fail_at(parsed.source.position_of(offset), failure.what());
  }
}

namespace {

// A runtime that is ready to render a list of messages of which prefixes can be taken.
struct PrefixRender {
  PrefixRender(const Json& messages, const Json& context, bool add_generation_prompt,
               jinja::Prefixes& prefixes)
      : captured(runtime) {
    runtime.watch_output();
    define_variables(runtime, context, add_generation_prompt);
    jinja::Values items;
    for (const Json& message : messages) {
      items.push_back(jinja::from_json(runtime, with_reasoning_fields(message)));
    }
    runtime.globals().set("messages",
                          runtime.make<jinja::PrefixList>(std::move(items), 0, prefixes));
  }
  void run(const jinja::Body& body) {
    jinja::execute_all(body, runtime, runtime.new_scope(&runtime.globals()));
  }

  jinja::Runtime runtime;
  jinja::Capture captured;
};

// Texts over what another pass of the same render has written as far as it went.
void take_more(std::string base, std::map<size_t, SharedText> texts,
               ChatTemplate::Prefixes& result) {
  if (!base.starts_with(result.base) && !result.base.starts_with(base)) return;
  if (base.size() > result.base.size()) result.base = std::move(base);
  result.texts.merge(texts);
}

}  // namespace

struct ChatTemplate::Beginnings::Ready {
  Ready(Parsed& of_template, const Json& messages, const Json& with_context,
        bool add_generation_prompt)
      : parsed(of_template),
        context(with_context),
        prefixes({}, messages.size()),
        render(messages, context, add_generation_prompt, prefixes) {}

  Parsed& parsed;
  const Json context;  // whose names the render's variables have
  jinja::Prefixes prefixes;
  PrefixRender render;
};

ChatTemplate::Beginnings::Beginnings(const ChatTemplate& chat_template, const Json& messages,
                                     const Json& context, bool add_generation_prompt) {
  Parsed& parsed = chat_template.parsed_for(context);
  try {
    ready_ = std::make_unique<Ready>(parsed, messages, context, add_generation_prompt);
  } catch (const jinja::Failure&) {
    // text() gives nothing
  }
}

ChatTemplate::Beginnings::~Beginnings() = default;

std::optional<std::string> ChatTemplate::Beginnings::text(size_t length) {
  if (!ready_) return std::nullopt;
  jinja::Runtime& runtime = ready_->render.runtime;
  std::optional<std::string> found;
  try {
    const SharedText text = ready_->prefixes.run_aside(
        length, runtime, runtime.globals(), [&] { ready_->render.run(ready_->parsed.tree.body); });
    found = text.rest;
  } catch (const jinja::Failure&) {
  }
  if (runtime.read_clock()) ready_->parsed.read_clock = true;
  return found;
}

ChatTemplate::Prefixes ChatTemplate::render_prefixes(const Json& messages, const Json& context,
                                                     bool add_generation_prompt,
                                                     const std::vector<size_t>& lengths) const {
  Prefixes result;
  Parsed& parsed = parsed_for(context);
  // Whether there is more to find by another pass.
  const auto pass = [&](std::vector<size_t> wanted, jinja::Prefixes::Waits waits) {
    jinja::Prefixes prefixes(std::move(wanted), messages.size(), waits);
    PrefixRender render(messages, context, add_generation_prompt, prefixes);
    try {
      render.run(parsed.tree.body);
    } catch (const jinja::PrefixesDone&) {
    } catch (const jinja::Failure&) {
      // what was found before it stands
    }
    if (render.runtime.read_clock()) parsed.read_clock = true;
    result.work += render.runtime.work();
    take_more(render.captured.take(), prefixes.take(), result);
    return prefixes.passed_by_any();
  };
  try {
    if (!pass(lengths, jinja::Prefixes::Waits::kForLastLoop)) return result;
    std::vector<size_t> missing;
    for (const size_t length : lengths)
      if (!result.texts.contains(length)) missing.push_back(length);
    if (!missing.empty()) pass(std::move(missing), jinja::Prefixes::Waits::kForNone);
  } catch (const jinja::Failure&) {
    // of a variable; render() says it
  }
  return result;
}

}  // namespace qlora::data

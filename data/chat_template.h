// Renders conversations with the Jinja templates that models ship: the same text transformers'
// apply_chat_template gives.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/shared_text.h"
#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// Key order matters to templates (tojson, items): ordered JSON throughout.
using Json = nlohmann::ordered_json;

class ChatTemplate {
 public:
  // Parses the template; FormatError with line and column if it is not valid Jinja or uses
  // something unsupported. `name` is what messages call it (a file name, "the model's chat
  // template").
  explicit ChatTemplate(const std::string& source, const std::string& name = "chat template");
  // Of a model that names a second one `tool_use` (empty: it has none): as in transformers, that
  // one renders whatever has tools among its variables. What is wrong with it is told where it is
  // used.
  ChatTemplate(const std::string& source, const std::string& name, const std::string& tool_use);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // `messages`: array of {"role", "content", ...}. `context`: further variables (bos_token,
  // eos_token, tools, enable_thinking, ...), an object. Template errors and raise_exception become
  // FormatError with the template's line.
  std::string render(const Json& messages, const Json& context, bool add_generation_prompt) const;

  // render() without a generation prompt, and the spans of its text that {% generation %} blocks
  // wrote, in order and none of them empty. Blocks inside of a macro or a set block have no place
  // in the text and give no span.
  struct Marked {
    std::string text;
    std::vector<TextSpan> generated;
  };
  Marked render_marked(const Json& messages, const Json& context) const;
  // Whether it has {% generation %} blocks, which say what of a conversation is to be trained; of
  // one with these variables.
  bool marks_generation() const;
  bool marks_generation(const Json& context) const;
  // Whether a render has called strftime_now since it was made, whatever variable the date went
  // through: the same messages may give another text on another day. Safe to call from several
  // threads, as all of it.
  bool has_read_clock() const;

  // render() of the first messages of one conversation, which is made ready for the template once.
  class Beginnings {
   public:
    // `chat_template` must outlive this. FormatError as render().
    Beginnings(const ChatTemplate& chat_template, const Json& messages, const Json& context,
               bool add_generation_prompt);
    ~Beginnings();
    // Of the first `length` messages, from 1 to their number; nothing if the rendering fails.
    std::optional<std::string> text(size_t length);

   private:
    struct Ready;
    std::unique_ptr<Ready> ready_;
  };

  // render() of the first lengths[0], lengths[1], ... messages (ascending, from 1 to the number of
  // messages), as far as one pass over all messages can tell them (jinja/prefixes.h): exactly those
  // texts, over `base`. Others are left out, also those whose rendering fails.
  struct Prefixes {
    std::string base;
    std::map<size_t, SharedText> texts;  // by number of messages
    size_t work = 0;                     // that it took (jinja/runtime.h)
  };
  Prefixes render_prefixes(const Json& messages, const Json& context, bool add_generation_prompt,
                           const std::vector<size_t>& lengths) const;

  const std::string& source() const;
  const std::string& tool_use_source() const;  // empty: it has none
  // Of the one that renders what has these variables.
  const std::string& source_for(const Json& context) const;

 private:
  Marked render_all(const Json& messages, const Json& context, bool add_generation_prompt) const;

  struct Parsed;
  Parsed& parsed_for(const Json& context) const;

  std::unique_ptr<Parsed> parsed_;
  std::unique_ptr<Parsed> tool_use_;  // nullptr: there is none, or it is not valid
  std::string tool_use_source_, tool_use_error_;
};

// "chatml", "llama-2", "llama-3", "alpaca", "vicuna", "zephyr", "mistral", "gemma", "phi-3".
const std::vector<std::string>& builtin_chat_template_names();
// Text of a built-in template. An unknown name is a ConfigError that lists them.
const std::string& builtin_chat_template(const std::string& name);

}  // namespace qlora::data

#include "export/conversation_form.h"

#include <array>
#include <nlohmann/json.hpp>
#include <span>
#include <vector>

#include "base/error.h"
#include "data/chat_renderer.h"

namespace qlora::exporting {
namespace {

using Form = ConversationForm;

constexpr const char* kSystemMark = "The-system-message";
constexpr std::array<const char*, 5> kMarks = {"The-first-question", "The-first-answer",
                                               "The-second-question", "The-second-answer",
                                               "The-third-question"};

// What the template makes of messages, without BOS; nothing if it refuses them.
class Renders {
 public:
  Renders(const data::ChatTemplate& chat_template, const data::Tokenizer& tokenizer)
      : renderer_(chat_template, tokenizer), bos_(tokenizer.special_tokens().bos) {}

  std::optional<std::string> operator()(const data::Json& messages, bool asks = true) const {
    try {
      std::string text = renderer_.render(messages, data::Json::object(), asks);
      if (bos_ && text.starts_with(bos_->text)) text.erase(0, bos_->text.size());
      return text;
    } catch (const Error&) {
      return std::nullopt;
    }
  }

 private:
  const data::ChatRenderer renderer_;
  const std::optional<data::SpecialToken>& bos_;
};

data::Json message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

// The first `count` of `contents`, user and assistant in turn, behind `system` unless it is empty.
data::Json conversation(const std::string& system, std::span<const char* const> contents,
                        size_t count) {
  data::Json messages = data::Json::array();
  if (!system.empty()) messages.push_back(message("system", system));
  for (size_t i = 0; i < count; ++i)
    messages.push_back(message(i % 2 == 0 ? "user" : "assistant", contents[i]));
  return messages;
}

data::Json marked(const std::string& system, size_t count) {
  return conversation(system, kMarks, count);
}

// What stands before, between and behind the marks; nothing unless each is there, in order.
std::optional<std::vector<std::string>> around_marks(const std::optional<std::string>& text,
                                                     bool with_system) {
  if (!text) return std::nullopt;
  std::vector<std::string> marks(kMarks.begin(), kMarks.end());
  if (with_system) marks.insert(marks.begin(), kSystemMark);
  std::vector<std::string> around;
  size_t from = 0;
  for (const std::string& mark : marks) {
    const size_t at = text->find(mark, from);
    if (at == std::string::npos) return std::nullopt;
    around.push_back(text->substr(from, at - from));
    from = at + mark.size();
  }
  around.push_back(text->substr(from));
  return around;
}

// What the template writes behind the last of the first `count` messages where it asks for no
// answer.
std::string behind_last(const Renders& rendered, size_t count) {
  const auto text = rendered(marked("", count), false);
  const std::string mark = kMarks[count - 1];
  const size_t at = text ? text->rfind(mark) : std::string::npos;
  return at == std::string::npos ? "" : text->substr(at + mark.size());
}

bool take_off(std::string& text, const std::string& beginning) {
  if (!text.starts_with(beginning)) return false;
  text.erase(0, beginning.size());
  return true;
}

// All but the system message.
std::optional<Form> form_of_turns(const Renders& rendered) {
  const auto around = around_marks(rendered(marked("", kMarks.size())), false);
  if (!around) return std::nullopt;
  Form form;
  form.before_first_user = (*around)[0];
  form.before_answer = (*around)[1];
  form.before_user = (*around)[2];
  form.prompt = around->back();
  // Where a message ends cannot be seen of every template, and need not.
  if (const std::string behind = behind_last(rendered, 1);
      form.before_answer.starts_with(behind) && form.prompt.starts_with(behind)) {
    form.behind_user = behind;
    take_off(form.before_answer, behind);
    take_off(form.prompt, behind);
  }
  if (const std::string behind = behind_last(rendered, 2); take_off(form.before_user, behind))
    form.behind_answer = behind;
  return form;
}

void add_default_system(Form& form) {
  const std::string& found = form.before_first_user;
  const size_t around = form.before_system.size() + form.behind_system.size();
  if (found.size() <= around || !found.starts_with(form.before_system) ||
      !found.ends_with(form.behind_system))
    return;
  form.default_system = found.substr(form.before_system.size(), found.size() - around);
  // No conversation begins without a system message any more.
  form.before_first_user = form.before_user;
}

// False if it has no place of its own.
bool add_system(const Renders& rendered, Form& form) {
  const auto text = rendered(marked(kSystemMark, kMarks.size()));
  if (!text) {
    form.system = Form::System::kRefused;
    form.before_system = form.before_first_user;
    form.behind_system = "\n\n";
    return true;
  }
  if (text == rendered(marked("", kMarks.size()))) {
    form.system = Form::System::kLeftOut;
    return true;
  }
  const auto around = around_marks(text, true);
  if (!around) return false;
  form.before_system = (*around)[0];
  form.behind_system = (*around)[1];
  add_default_system(form);
  return true;
}

bool holds(const Form& form, const Renders& rendered) {
  constexpr std::array<const char*, 7> contents = {
      "Hello",     "Hi.", "<b>1 + 1</b>?\n\n  \"Two\" lines & \xC3\xA9, {x}",
      "It's\n- 2", "No",  "Yes, it is: 100 %",
      "And now?"};
  for (const char* system : {"", "Be brief.\nAnd {kind}."}) {
    if (*system != 0 && form.system == Form::System::kRefused) continue;
    for (size_t count = 1; count <= contents.size(); count += 2) {
      const data::Json messages = conversation(system, contents, count);
      if (rendered(messages) != form.render(messages)) return false;
    }
  }
  return true;
}

bool trims(const Form& form, const Renders& rendered) {
  constexpr std::array<const char*, 3> contents = {" Hello\n", " Hi. ", "\nAnd now? "};
  const std::string system = form.system == Form::System::kRefused ? "" : "\nBe brief. ";
  const data::Json messages = conversation(system, contents, contents.size());
  return rendered(messages) != form.render(messages);
}

bool strips_thoughts(const Form& form, const Renders& rendered) {
  constexpr std::array<const char*, 3> contents = {"Hello", "<think>\na\n</think>\n\nb",
                                                   "And now?"};
  const data::Json messages = conversation("", contents, contents.size());
  const auto text = rendered(messages);
  return text && *text != form.render(messages);
}

}  // namespace

std::string ConversationForm::render(const data::Json& messages) const {
  std::string text, given = default_system;
  bool is_first = true;
  for (const data::Json& message : messages) {
    const auto& content = message["content"].get_ref<const std::string&>();
    if (message["role"] == "system") {
      given = content;
    } else if (message["role"] == "assistant") {
      text += before_answer + content + behind_answer;
    } else {
      if (!is_first)
        text += before_user;
      else if (given.empty() || system == System::kLeftOut)
        text += before_first_user;
      else
        text += before_system + given + behind_system;
      text += content + behind_user;
      is_first = false;
    }
  }
  return text + prompt;
}

std::optional<ConversationForm> conversation_form(const data::ChatTemplate& chat_template,
                                                  const data::Tokenizer& tokenizer) {
  const Renders rendered(chat_template, tokenizer);
  std::optional<Form> form = form_of_turns(rendered);
  if (!form || !add_system(rendered, *form) || !holds(*form, rendered) ||
      chat_template.has_read_clock())
    return std::nullopt;
  form->trims = trims(*form, rendered);
  form->strips_thoughts = strips_thoughts(*form, rendered);
  return form;
}

}  // namespace qlora::exporting

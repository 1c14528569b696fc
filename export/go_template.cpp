#include "export/go_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace qlora::exporting {
namespace {

using Form = ConversationForm;

constexpr const char* kContent = "{{ .Content }}";

// Text between actions. Two braces, or one before an action, would open one.
std::string literal(const std::string& text) {
  std::string escaped;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool opens = text[i] == '{' && (i + 1 == text.size() || text[i + 1] == '{');
    escaped += opens ? "{{ \"{\" }}" : text.substr(i, 1);
  }
  return escaped;
}

// Nothing: the system message belongs to the first user's.
std::optional<std::string> behind_own_system(const Form& form) {
  if (form.system != Form::System::kWritten ||
      !form.behind_system.ends_with(form.before_first_user))
    return std::nullopt;
  return form.behind_system.substr(0, form.behind_system.size() - form.before_first_user.size());
}

// All messages, where they are alike but for the name of the role; nothing if they are not.
std::optional<std::string> same_for_all_roles(const Form& form) {
  const auto behind_system = behind_own_system(form);
  if (!behind_system || form.before_first_user != form.before_user ||
      *behind_system != form.behind_user || form.behind_answer != form.behind_user)
    return std::nullopt;
  const std::string& user = form.before_user;
  const std::string role = "user";
  for (size_t at = user.find(role); at != std::string::npos; at = user.find(role, at + 1)) {
    const std::string before = user.substr(0, at), behind = user.substr(at + role.size());
    if (form.before_system == before + "system" + behind &&
        form.before_answer == before + "assistant" + behind)
      return literal(before) + "{{ .Role }}" + literal(behind) + kContent +
             literal(form.behind_user);
  }
  return std::nullopt;
}

// The texts before and behind a system message where the first user's message begins and goes on
// the same with it and without.
struct Within {
  size_t shared;  // letters of before_first_user that stand before it
  std::string before, behind;
};

std::optional<Within> within_first_user(const Form& form) {
  const std::string& whole = form.before_first_user;
  if (whole != form.before_user) return std::nullopt;
  const auto differ = std::ranges::mismatch(whole, form.before_system);
  for (auto shared = static_cast<size_t>(differ.in1 - whole.begin()) + 1; shared-- > 0;) {
    const std::string rest = whole.substr(shared);
    if (form.behind_system.ends_with(rest))
      return Within{shared, form.before_system.substr(shared),
                    form.behind_system.substr(0, form.behind_system.size() - rest.size())};
  }
  return std::nullopt;
}

bool has_other_first(const Form& form) { return form.before_first_user != form.before_user; }

// Before the content of a user's message, where no system message stands.
std::string plain_before_user(const Form& form) {
  if (!has_other_first(form)) return literal(form.before_user);
  return fmt::format("{{{{ if $later }}}}{}{{{{ else }}}}{}{{{{ end }}}}",
                     literal(form.before_user), literal(form.before_first_user));
}

// The same with the system message, if there is one.
std::string before_user(const Form& form) {
  constexpr const char* shown = "{{ $system }}";
  constexpr const char* done = "{{ $system = \"\" }}";
  if (const auto within = within_first_user(form))
    return literal(form.before_user.substr(0, within->shared)) + "{{ if $system }}" +
           literal(within->before) + shown + literal(within->behind) + done + "{{ end }}" +
           literal(form.before_user.substr(within->shared));
  return "{{ if $system }}" + literal(form.before_system) + shown + literal(form.behind_system) +
         done + (has_other_first(form) ? "{{ else if $later }}" + literal(form.before_user) : "") +
         "{{ else }}" + literal(form.before_first_user) + "{{ end }}";
}

std::string each_role(const Form& form) {
  const bool has_system = form.system != Form::System::kLeftOut;
  const auto behind_system = behind_own_system(form);
  const bool keeps_system = has_system && !behind_system;
  std::string text;
  if (keeps_system) text += "{{ $system := \"\" }}";
  if (has_other_first(form)) text += "{{ $later := false }}";
  text += "{{ range .Messages }}";
  if (keeps_system)
    text += "{{ if eq .Role \"system\" }}{{ $system = .Content }}{{ else ";
  else if (has_system)
    text += "{{ if eq .Role \"system\" }}" + literal(form.before_system) + kContent +
            literal(*behind_system) + "{{ else ";
  else
    text += "{{ ";
  text += "if eq .Role \"user\" }}" + (keeps_system ? before_user(form) : plain_before_user(form)) +
          kContent + literal(form.behind_user);
  if (has_other_first(form)) text += "{{ $later = true }}";
  text += "{{ else if eq .Role \"assistant\" }}" + literal(form.before_answer) + kContent +
          literal(form.behind_answer);
  return text + "{{ end }}{{ end }}";
}

}  // namespace

std::string go_template(const ConversationForm& form) {
  const auto same = same_for_all_roles(form);
  return (same ? "{{ range .Messages }}" + *same + "{{ end }}" : each_role(form)) +
         literal(form.prompt);
}

}  // namespace qlora::exporting

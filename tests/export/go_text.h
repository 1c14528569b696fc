// The part of Go's template language that Modelfiles are written in, read as Go reads it.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"

namespace qlora::test {

class GoText {
 public:
  explicit GoText(const std::string& source) {
    for (size_t at = 0; at < source.size();) {
      const size_t open = source.find("{{", at);
      parts_.push_back({false, source.substr(at, open - at)});
      if (open == std::string::npos) break;
      const size_t close = source.find("}}", open);
      if (close == std::string::npos || source.compare(open, 3, "{{ ") != 0)
        throw FormatError("unclosed or unspaced action");
      parts_.push_back({true, source.substr(open + 3, close - open - 4)});
      at = close + 2;
    }
  }

  // `messages`: of role and content.
  std::string render(const nlohmann::ordered_json& messages) {
    messages_ = &messages;
    variables_.clear();
    std::string text;
    if (block(0, nullptr, &text) != parts_.size()) throw FormatError("one end too many");
    return text;
  }

 private:
  struct Part {
    bool is_action;
    std::string text;
  };
  using Json = nlohmann::ordered_json;

  // Runs (into nothing: skips) what ends at an else, an end or the text's end, and returns where.
  size_t block(size_t at, const Json* message, std::string* out) {
    for (; at < parts_.size(); ++at) {
      const Part& part = parts_[at];
      if (!part.is_action) {
        if (out) *out += part.text;
      } else if (part.text == "end" || part.text.starts_with("else")) {
        return at;
      } else if (part.text == "range .Messages") {
        const size_t begin = at + 1;
        at = block(begin, message, nullptr);
        if (out)
          for (const Json& each : *messages_) block(begin, &each, out);
      } else if (part.text.starts_with("if ")) {
        at = branches(at, message, out);
      } else if (out) {
        *out += action(part.text, message);
      }
    }
    return at;
  }

  size_t branches(size_t at, const Json* message, std::string* out) {
    for (bool taken = false;;) {
      const std::string& text = parts_.at(at).text;
      if (text == "end") return at;
      const size_t condition = text.find("if ");
      const bool now =
          out && !taken &&
          (condition == std::string::npos || holds(text.substr(condition + 3), message));
      taken = taken || now;
      at = block(at + 1, message, now ? out : nullptr);
    }
  }

  bool holds(const std::string& condition, const Json* message) {
    if (condition.starts_with("eq ")) {
      const size_t blank = condition.find(' ', 3);
      return value(condition.substr(3, blank - 3), message) ==
             value(condition.substr(blank + 1), message);
    }
    const std::string found = value(condition, message);
    return !found.empty() && found != "false";
  }

  // What is written, which is nothing of an assignment.
  std::string action(const std::string& text, const Json* message) {
    const size_t equals = text.find(" = "), declares = text.find(" := ");
    if (declares != std::string::npos) {
      variables_[text.substr(0, declares)] = value(text.substr(declares + 4), message);
    } else if (equals != std::string::npos) {
      variables_.at(text.substr(0, equals)) = value(text.substr(equals + 3), message);
    } else {
      return value(text, message);
    }
    return "";
  }

  std::string value(const std::string& term, const Json* message) {
    if (term == "true" || term == "false") return term;
    if (term.starts_with('"')) return term.substr(1, term.size() - 2);
    if (term.starts_with('$')) return variables_.at(term);
    if (message && term == ".Role") return message->at("role");
    if (message && term == ".Content") return message->at("content");
    throw FormatError("no term of Go's: " + term);
  }

  std::vector<Part> parts_;
  std::map<std::string, std::string> variables_;
  const Json* messages_ = nullptr;
};

}  // namespace qlora::test

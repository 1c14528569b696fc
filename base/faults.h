// What is wrong with options, gathered so that all of it is told at once.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace qlora {

class Faults {
 public:
  // A formatted sentence, which begins with the key that it is about; once.
  template <typename... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    add_sentence(fmt::format(format, std::forward<Args>(args)...));
  }
  // What a check is refused with by a ConfigError. Whether it was not.
  template <typename Check>
  bool collect(const Check& check) {
    try {
      check();
      return true;
    } catch (const ConfigError& error) {
      add_sentence(error.what());
      return false;
    }
  }

  const std::vector<std::string>& sentences() const { return sentences_; }
  // ConfigError with a line for each.
  void throw_if_any() const {
    if (sentences_.empty()) return;
    std::string lines;
    for (const std::string& sentence : sentences_) lines += (lines.empty() ? "" : "\n") + sentence;
    throw ConfigError(lines);
  }

 private:
  void add_sentence(std::string sentence) {
    if (std::ranges::find(sentences_, sentence) == sentences_.end())
      sentences_.push_back(std::move(sentence));
  }

  std::vector<std::string> sentences_;
};

// ConfigError with all that options.find_faults() finds.
template <typename Options>
void require_no_faults(const Options& options) {
  Faults faults;
  options.find_faults(faults);
  faults.throw_if_any();
}

}  // namespace qlora

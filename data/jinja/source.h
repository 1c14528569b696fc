// A template's text and how messages point into it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qlora::data::jinja {

// Counted from 1, the column in code points.
struct Position {
  int line = 1;
  int column = 1;
};

class Source {
 public:
  // FormatError unless `text` is valid UTF-8 of at most 4 MiB. Line ends become \n and the last one
  // is dropped, as jinja2 does.
  Source(const std::string& text, std::string name);

  const std::string& text() const { return text_; }
  Position position_of(size_t offset) const;

  // Throws FormatError: name, line, column, the message, and the line with what stands around it.
  [[noreturn]] void fail_at(Position position, std::string_view message) const;

 private:
  std::string excerpt(Position position) const;

  std::string text_;
  std::string name_;
};

}  // namespace qlora::data::jinja

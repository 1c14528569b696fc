// Lines that a person types: edited and remembered on a terminal (libedit), read as they are from
// anything else.
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace qlora::cli {

class LineReader {
 public:
  // Remembers lines in `history_file`, which only its owner can read, from one session to the
  // next; empty: for this session. Where stdin or stdout is no terminal there is no history.
  explicit LineReader(const std::string& history_file);
  ~LineReader();

  // Writes `prompt` and reads a line, without its end; nothing at the end of the input (Ctrl-D).
  // Ctrl-C on a terminal abandons the line: an empty one comes back.
  std::optional<std::string> read(const std::string& prompt);

  // Whether a person types the lines, on a terminal; the output may go elsewhere.
  static bool is_at_terminal();

 private:
  class Editor;
  std::unique_ptr<Editor> editor_;  // null: no terminal
};

// $XDG_STATE_HOME/qlora/NAME, or below ~/.local/state as the XDG base directory specification has
// it; its directory is made. Empty if there is no home.
std::string state_file(const std::string& name);

}  // namespace qlora::cli

#include "cli/line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>

namespace qlora::cli {
namespace {

constexpr int kRememberedLines = 1000;

// Characters of more than one byte are edited as one.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

}  // namespace

class LineReader::Editor {
 public:
  explicit Editor(std::string history_file) : history_file_(std::move(history_file)) {
    use_utf8();
    edit_ = el_init("qlora", stdin, stdout, stderr);
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, kRememberedLines);
    history(history_, &event, H_SETUNIQUE, 1);
    if (!history_file_.empty()) history(history_, &event, H_LOAD, history_file_.c_str());
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(
        edit_, EL_PROMPT, +[](EditLine* edit) { return of(edit).prompt_.data(); });
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, history_);
    bind("\x03", "abandon-line", [](EditLine* edit, int) -> unsigned char {
      of(edit).abandoned_ = true;
      return CC_NEWLINE;
    });
    bind("\x1a", "suspend", [](EditLine* edit, int) -> unsigned char {
      el_set(edit, EL_PREP_TERM, 0);
      raise(SIGTSTP);
      el_set(edit, EL_PREP_TERM, 1);
      return CC_REDISPLAY;
    });
    // While a line is edited, Ctrl-C and Ctrl-Z are keys; at other times the terminal's signals.
    el_set(edit_, EL_SETTY, "-d", "-isig", nullptr);
    el_source(edit_, nullptr);  // the user's ~/.editrc
  }

  ~Editor() {
    history_end(history_);
    el_end(edit_);
  }

  std::optional<std::string> read(const std::string& prompt) {
    prompt_ = prompt;
    abandoned_ = false;
    int length = 0;
    const char* text = el_gets(edit_, &length);
    if (abandoned_) {  // an empty line that is abandoned looks like the end of the input
      std::fputs("^C\n", stdout);
      return "";
    }
    if (text == nullptr || length <= 0) return std::nullopt;
    std::string line(text, static_cast<size_t>(length));
    if (line.ends_with('\n')) line.pop_back();
    remember(line);
    return line;
  }

 private:
  static Editor& of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return *static_cast<Editor*>(self);
  }

  void bind(const char* key, const char* name, unsigned char (*action)(EditLine*, int)) {
    el_set(edit_, EL_ADDFN, name, name, action);
    el_set(edit_, EL_BIND, key, name, nullptr);
  }

  // Saved at once: a chat may end by a signal.
  void remember(const std::string& line) {
    if (line.empty()) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (history_file_.empty()) return;
    const mode_t before = umask(S_IRWXG | S_IRWXO);
    history(history_, &event, H_SAVE, history_file_.c_str());
    umask(before);
  }

  std::string history_file_, prompt_;
  bool abandoned_ = false;
  EditLine* edit_;
  History* history_;
};

LineReader::LineReader(const std::string& history_file) {
  if (is_at_terminal() && isatty(STDOUT_FILENO) == 1)
    editor_ = std::make_unique<Editor>(history_file);
}

LineReader::~LineReader() = default;

bool LineReader::is_at_terminal() { return isatty(STDIN_FILENO) == 1; }

std::optional<std::string> LineReader::read(const std::string& prompt) {
  if (editor_) return editor_->read(prompt);
  std::cerr << prompt << std::flush;
  std::string line;
  if (!std::getline(std::cin, line)) return std::nullopt;
  return line;
}

std::string state_file(const std::string& name) {
  namespace fs = std::filesystem;
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  fs::path directory;
  if (state != nullptr && *state == '/')
    directory = state;
  else if (home != nullptr && *home == '/')
    directory = fs::path(home) / ".local/state";
  else
    return "";
  std::error_code status;
  fs::create_directories(directory / "qlora", status);
  return status ? "" : (directory / "qlora" / name).string();
}

}  // namespace qlora::cli

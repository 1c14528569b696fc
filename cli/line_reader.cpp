#include "cli/line_reader.h"

#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "io/user_path.h"

namespace qlora::cli {
namespace {

constexpr int kRememberedLines = 1000;

// Characters of more than one byte are edited as one.
void use_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

// With the lines of `file`, if it is there.
History* new_history(const std::string& file) {
  History* lines = history_init();
  HistEvent event;
  history(lines, &event, H_SETSIZE, kRememberedLines);
  history(lines, &event, H_SETUNIQUE, 1);
  if (!file.empty()) history(lines, &event, H_LOAD, file.c_str());
  return lines;
}

}  // namespace

class LineReader::Editor {
 public:
  explicit Editor(std::string history_file) : history_file_(std::move(history_file)) {
    use_utf8();
    edit_ = el_init("qlora", stdin, stdout, stderr);
    history_ = new_history(history_file_);
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

  void remember(const std::string& line) {
    if (line.empty()) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    if (!history_file_.empty()) save(line);
  }

  // Saved at once: a chat may end by a signal. Another one may have added lines since this one
  // began: the file is that of both, which nobody else writes meanwhile.
  void save(const std::string& line) const {
    const mode_t before = umask(S_IRWXG | S_IRWXO);
    const int lock = open(history_file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock >= 0) flock(lock, LOCK_EX);
    HistEvent event;
    History* all = new_history(history_file_);
    history(all, &event, H_ENTER, line.c_str());
    history(all, &event, H_SAVE, history_file_.c_str());
    history_end(all);
    if (lock >= 0) close(lock);
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
  if (line.ends_with('\r')) line.pop_back();  // of files whose lines end as on Windows
  return line;
}

std::string state_file(const std::string& name) {
  namespace fs = std::filesystem;
  const fs::path directory = io::user_directory("XDG_STATE_HOME", ".local/state");
  if (directory.empty()) return "";
  std::error_code status;
  fs::create_directories(directory / "qlora", status);
  return status ? "" : (directory / "qlora" / name).string();
}

}  // namespace qlora::cli

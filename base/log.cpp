#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstdio>
#include <memory>

#include "base/path_error.h"
#include "base/progress.h"
#include "base/shown_text.h"
#include "base/terminal.h"

namespace qlora::log {
namespace {

constexpr const char* kLogger = "qlora";

struct Sinks {
  std::shared_ptr<spdlog::sinks::stderr_color_sink_mt> terminal =
      std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> file;
  size_t width = terminal_width(stderr);
  std::string speaker;  // "rank 2: " before an error

  Sinks() {
    terminal->set_color_mode(takes_colour(stderr) ? spdlog::color_mode::always
                                                  : spdlog::color_mode::never);
  }
};

Sinks& sinks() {
  static Sinks sinks;
  return sinks;
}

// A line that a full disk or a lost terminal does not take ends no work.
void send(spdlog::sinks::sink& sink, spdlog::level::level_enum level, std::string_view line) {
  if (!sink.should_log(level)) return;
  try {
    sink.log({kLogger, level, spdlog::string_view_t(line.data(), line.size())});
    sink.flush();
  } catch (const spdlog::spdlog_ex&) {
  }
}

// An information line stands as it is; a warning or an error names itself in colour.
void write(spdlog::level::level_enum level, const char* name, std::string_view line,
           std::string_view shown) {
  Sinks& s = sinks();
  const auto no_progress_line = hold_progress_line();
  const bool named = level > spdlog::level::info;
  s.terminal->set_pattern(named ? fmt::format("%^{}:%$ %v", name) : "%v");
  send(*s.terminal, level, shown);
  if (s.file) send(*s.file, level, line);
}

void write(spdlog::level::level_enum level, const char* name, std::string_view text) {
  const std::string line = shown_text(text);
  const std::string label = level > spdlog::level::info ? fmt::format("{}: ", name) : "";
  const std::string shown =
      wrapped(fmt::format("{}{}{}", label, sinks().speaker, line), sinks().width);
  write(level, name, line, std::string_view(shown).substr(label.size()));
}

}  // namespace

void open_file(const std::string& path) {
  close_file();
  // The library tells a failure in words of its own.
  std::FILE* file = std::fopen(path.c_str(), "ab");
  if (file == nullptr) fail_on_path(errno, "{} cannot be opened for writing", path);
  std::fclose(file);
  Sinks& s = sinks();
  s.file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, false);
  s.file->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
}

void close_file() { sinks().file.reset(); }

void set_quiet(bool quiet) {
  sinks().terminal->set_level(quiet ? spdlog::level::warn : spdlog::level::info);
}

void speak_as_rank(int rank) {
  sinks().speaker = fmt::format("rank {}: ", rank);
  sinks().terminal->set_level(spdlog::level::err);
  hide_progress();
}

void write_as_each_rank(std::string_view text) {
  Sinks& s = sinks();
  const std::string line = shown_text(text);
  const auto no_progress_line = hold_progress_line();
  s.terminal->set_pattern("%v");
  send(*s.terminal, spdlog::level::critical, wrapped(s.speaker + line, s.width));
  if (s.file) send(*s.file, spdlog::level::info, line);
}
void write_info(std::string_view line, std::string_view shown) {
  write(spdlog::level::info, "info", line, shown);
}
void write_info(std::string_view line) { write(spdlog::level::info, "info", line); }
void write_warning(std::string_view line) { write(spdlog::level::warn, "warning", line); }
void write_error(std::string_view line) { write(spdlog::level::err, "error", line); }

}  // namespace qlora::log

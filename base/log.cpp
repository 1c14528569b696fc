#include "base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "base/progress.h"
#include "base/shown_text.h"

namespace qlora::log {
namespace {

struct Sinks {
  std::shared_ptr<spdlog::sinks::stderr_color_sink_mt> terminal =
      std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  std::shared_ptr<spdlog::sinks::basic_file_sink_mt> file;
  spdlog::logger logger{"qlora", terminal};

  Sinks() {
    // An information line stands as it is; a warning or an error names itself in colour.
    terminal->set_pattern("%v");
    logger.set_level(spdlog::level::info);
    logger.flush_on(spdlog::level::info);
  }
};

Sinks& sinks() {
  static Sinks sinks;
  return sinks;
}

void write(spdlog::level::level_enum level, const char* name, std::string_view text) {
  Sinks& s = sinks();
  const std::string line = shown_text(text);
  const auto no_progress_line = hold_progress_line();
  if (level > spdlog::level::info) {
    s.terminal->set_pattern(fmt::format("%^{}:%$ %v", name));
    s.logger.log(level, spdlog::string_view_t(line));
    s.terminal->set_pattern("%v");
  } else {
    s.logger.log(level, spdlog::string_view_t(line));
  }
}

}  // namespace

void open_file(const std::string& path) {
  close_file();
  Sinks& s = sinks();
  s.file = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path, false);
  s.file->set_pattern("%Y-%m-%d %H:%M:%S %l %v");
  s.logger.sinks().push_back(s.file);
}

void close_file() {
  Sinks& s = sinks();
  if (s.file) s.logger.sinks().pop_back();
  s.file.reset();
}

void set_quiet(bool quiet) {
  sinks().terminal->set_level(quiet ? spdlog::level::warn : spdlog::level::info);
}

void write_info(std::string_view line) { write(spdlog::level::info, "info", line); }
void write_warning(std::string_view line) { write(spdlog::level::warn, "warning", line); }
void write_error(std::string_view line) { write(spdlog::level::err, "error", line); }

}  // namespace qlora::log

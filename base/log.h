// Lines for people. They go to the terminal (stderr) and, once a run is open, to its log.txt too.
// On a terminal they break between words. Facts for programs go to stdout or metrics.jsonl instead.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

namespace qlora::log {

// From now on, copy every line to this file as well (appends). PathError or IoError if it cannot be
// opened.
void open_file(const std::string& path);
void close_file();
// Quiet: warnings and errors only reach the terminal; the file still gets everything.
void set_quiet(bool quiet);
// This process is one of several of a run and not the one that speaks: only errors reach the
// terminal, and they name the rank; no phase shows itself (base/progress.h).
void speak_as_rank(int rank);

void write_info(std::string_view line);
// An information line that the terminal gets as `shown`: shorter, or in colour.
void write_info(std::string_view line, std::string_view shown);
// An information line that every rank of a run writes, with its number.
void write_as_each_rank(std::string_view line);
void write_warning(std::string_view line);
void write_error(std::string_view line);

template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write_info(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(fmt::format_string<Args...> format, Args&&... args) {
  write_warning(fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write_error(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace qlora::log

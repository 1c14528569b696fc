#include "trainer/cut_lines.h"

#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/read_file.h"

namespace qlora::trainer {
namespace {

// A line that was cut off by a kill does not parse: it belongs to a step that is run again.
std::string lines_up_to(const std::string& text, int64_t last_step) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const auto json = io::json_or_discarded(line);
    if (!json.is_object()) continue;
    const auto step = json.find("step");
    if (step == json.end() || !step->is_number_integer() || step->get<int64_t>() <= last_step)
      kept += line + '\n';
  }
  return kept;
}

}  // namespace

std::string cut_after(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return path;
  const std::string text = io::read_bytes(path);
  if (const std::string kept = lines_up_to(text, last_step); kept != text)
    io::write_file_atomically(path, kept);
  return path;
}

bool has_step_after(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return false;
  const std::string text = io::read_bytes(path);
  return lines_up_to(text, std::numeric_limits<int64_t>::max()) != lines_up_to(text, last_step);
}

bool goes_on_after(const std::string& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return false;
  const std::string text = io::read_bytes(path);
  return lines_up_to(text, last_step) != text;
}

}  // namespace qlora::trainer

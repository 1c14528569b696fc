#include "trainer/step_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/progress.h"

namespace qlora::trainer {
namespace {

constexpr const char* kBold = "\x1b[1m";
constexpr const char* kGrey = "\x1b[90m";
constexpr const char* kPlain = "\x1b[0m";

std::string coloured(const std::string& text, const char* colour) {
  return text.empty() || *colour == '\0' ? text : fmt::format("{}{}{}", colour, text, kPlain);
}

struct Part {
  std::string label, value, unit;
  int rank;  // the highest goes first where there is no room
  const char* colour = "";

  size_t columns() const { return label.size() + value.size() + unit.size(); }
  std::string to_text(bool in_colour) const {
    if (!in_colour) return label + value + unit;
    return coloured(label, kGrey) + coloured(value, colour) + coloured(unit, kGrey);
  }
};

std::vector<Part> parts_of(const StepMetrics& m, double seconds_left) {
  const auto tokens = static_cast<double>(std::max<int64_t>(m.tokens, 1));
  const double supervised = 100.0 * static_cast<double>(m.supervised_tokens) / tokens;
  std::vector<Part> parts = {
      {"step ", fmt::format("{:>4}/{}", m.step, m.total_steps), "", 0},
      {"epoch ", fmt::format("{:.2f}", m.epoch), "", 2},
      {"loss ", fmt::format("{:.4f}", m.loss), "", 0, kBold},
      {"lr ", fmt::format("{:.2e}", m.learning_rate), "", 3},
      {"grad ", fmt::format("{:.3f}", m.grad_norm), "", 4},
      {"", fmt::format("{:>6.0f}", static_cast<double>(m.tokens) / m.step_seconds), " tok/s", 1},
      {"supervised ", fmt::format("{:>3.0f}%", supervised), "", 6},
      {"", fmt::format("{:.2f}", static_cast<double>(m.peak_memory_bytes) / 1e9), " GB", 5},
      {"", clock_text(seconds_left), " left", 0}};
  if (!m.preference) return parts;
  constexpr ptrdiff_t kBehindLoss = 3;
  parts.insert(parts.begin() + kBehindLoss,
               {{"margin ", fmt::format("{:.3f}", m.preference->margin()), "", 2},
                {"accuracy ", fmt::format("{:>3.0f}%", 100 * m.preference->accuracy), "", 1}});
  return parts;
}

size_t columns_of(const std::vector<Part>& parts) {
  size_t columns = 0;
  for (const Part& part : parts) columns += (columns == 0 ? 0 : 2) + part.columns();
  return columns;
}

}  // namespace

std::string step_line(const StepMetrics& metrics, double seconds_left, size_t width, bool colour) {
  std::vector<Part> parts = parts_of(metrics, seconds_left);
  while (width > 0 && columns_of(parts) > width) {
    const auto least = std::ranges::max_element(parts, {}, &Part::rank);
    if (least->rank == 0) break;
    parts.erase(least);
  }
  std::string line;
  for (const Part& part : parts) line += (line.empty() ? "" : "  ") + part.to_text(colour);
  return line;
}

}  // namespace qlora::trainer

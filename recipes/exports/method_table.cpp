#include "recipes/exports/method_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/json_text.h"
#include "io/replaceable.h"
#include "recipes/output_place.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;

using Cells = std::vector<std::string>;

const Cells kHeader = {"method", "bits a weight",   "size, MB", "relative error",
                       "KL",     "top-1 agreement", "loss",     "seconds"};

Cells cells_of(const MethodRow& row) {
  return {row.method,
          fmt::format("{:.2f}", row.bits),
          fmt::format("{:.0f}", static_cast<double>(row.bytes) / 1e6),
          fmt::format("{:.5f}", row.errors.mean),
          fmt::format("{:.5f}", row.kl),
          fmt::format("{:.2f} %", 100 * row.top1),
          fmt::format("{:.4f}", row.loss),
          fmt::format("{:.1f}", row.seconds)};
}

// The header first.
std::vector<Cells> lines_of(const MethodTable& table) {
  std::vector<Cells> lines = {kHeader};
  for (const MethodRow& row : table.rows) lines.push_back(cells_of(row));
  return lines;
}

// What the numbers are of.
std::string sentences_of(const MethodTable& table) {
  const std::string rows = table.held_out.empty() ? "a few sentences" : table.held_out;
  std::string text = fmt::format(
      "Bits: of the quantized layers, scales included. Size: of the whole model. Relative error: "
      "|W - Q| / |W| (Frobenius), mean of the quantized layers. KL (nats a token, against the "
      "model itself) and top-1 agreement: {} tokens of {}. Loss: nats a token, {} tokens of {}.",
      table.compared_tokens, rows, table.predicted_tokens, rows);
  if (table.calibration.tokens > 0)
    text += fmt::format(" gptq is calibrated on {} tokens of {}.", table.calibration.tokens,
                        table.calibration.name);
  return text;
}

bool is_json(const std::string& path) { return fs::path(path).extension() == ".json"; }

nlohmann::ordered_json json_of(const MethodRow& row) {
  nlohmann::ordered_json json = {{"method", row.method},
                                 {"bits_a_weight", row.bits},
                                 {"bytes", row.bytes},
                                 {"relative_error", row.errors.mean},
                                 {"largest_relative_error", row.errors.largest},
                                 {"kl", row.kl},
                                 {"top1_agreement", row.top1},
                                 {"loss", row.loss},
                                 {"seconds", row.seconds}};
  if (!row.errors.largest_in.empty()) json["largest_relative_error_in"] = row.errors.largest_in;
  if (!row.settings.empty()) json["settings"] = row.settings;
  return json;
}

}  // namespace

std::string MethodTable::to_text() const {
  const std::vector<Cells> lines = lines_of(*this);
  std::vector<size_t> widths(kHeader.size(), 0);
  for (const Cells& line : lines)
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  std::string text;
  for (const Cells& line : lines) {
    text += fmt::format("{:<{}}", line[0], widths[0]);
    for (size_t i = 1; i < line.size(); ++i) text += fmt::format("  {:>{}}", line[i], widths[i]);
    text += "\n";
  }
  return text + "\n" + sentences_of(*this) + "\n";
}

std::string MethodTable::to_markdown() const {
  std::string text;
  for (const Cells& line : lines_of(*this)) {
    text += fmt::format("| {} |\n", fmt::join(line, " | "));
    if (line != kHeader) continue;
    text += "|---|";
    for (size_t i = 1; i < line.size(); ++i) text += "---:|";
    text += "\n";
  }
  return text + "\n" + sentences_of(*this) + "\n";
}

std::string MethodTable::to_json() const {
  nlohmann::ordered_json json = {
      {"model", model},
      {"held_out", held_out.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(held_out)},
      {"compared_tokens", compared_tokens},
      {"predicted_tokens", predicted_tokens}};
  if (calibration.tokens > 0)
    json["calibration"] = {{"name", calibration.name},
                           {"hash", calibration.hash},
                           {"sequences", calibration.sequences},
                           {"tokens", calibration.tokens}};
  json["methods"] = nlohmann::ordered_json::array();
  for (const MethodRow& row : rows) json["methods"].push_back(json_of(row));
  return io::json_text_in_utf8(json, 2) + "\n";
}

void require_table_file(const std::string& path) {
  if (!is_json(path) && fs::path(path).extension() != ".md")
    fail<ConfigError>("--report-file must end in .json or .md, found '{}'", path);
  io::require_new(path);
  require_output_file("--report-file", path);
}

void write_table(const MethodTable& table, const std::string& path) {
  require_table_file(path);
  io::write_file_atomically(path, is_json(path) ? table.to_json() : table.to_markdown());
}

}  // namespace qlora::recipes

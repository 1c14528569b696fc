#include "recipes/report/run_record.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdio>
#include <ctime>
#include <deque>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/shown_text.h"
#include "base/terminal.h"
#include "io/json_text.h"
#include "io/read_file.h"
#include "recipes/fields/fields.h"
#include "recipes/report/metrics_columns.h"
#include "recipes/report/rows.h"
#include "recipes/report/run_facts.h"
#include "recipes/run_files/run_directory.h"
#include "recipes/run_files/run_names.h"
#include "trainer/checkpoint.h"
#include "trainer/memory_report.h"

namespace qlora::recipes {
namespace {
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kLogLines = 40;

// Empty if the run has not written it.
std::string text_in(const std::string& run_dir, const char* name) {
  const std::string path = (fs::path(run_dir) / name).string();
  return fs::is_regular_file(path) ? io::read_bytes(path) : "";
}

Json last_lines(const std::string& text) {
  std::deque<std::string> kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    kept.push_back(line);
    if (kept.size() > kLogLines) kept.pop_front();
  }
  return kept;
}

// The last line that log.txt calls an error, if no step came after it: why the run ended.
std::string last_error(const Json& log) {
  std::string error;
  for (const Json& line : log) {
    const std::string text = line.get<std::string>();
    const size_t at = text.find(" error ");
    constexpr size_t kTime = 19;  // "2026-11-29 14:00:00"
    if (at == kTime) error = text.substr(at + 7);
    if (text.find(" info ") == kTime) error.clear();
  }
  return error;
}

std::string last_written(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return "";
  std::tm time{};
  localtime_r(&status.st_mtime, &time);
  char text[32];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M", &time));
}

std::string status_of(const std::string& run_dir, bool finished, const MetricsColumns& metrics,
                      const std::optional<trainer::TrainState>& state, const std::string& error) {
  const std::vector<double> steps = numbers_of(metrics.steps, "step");
  const int64_t done = steps.empty() ? 0 : static_cast<int64_t>(steps.back());
  if (finished) return fmt::format("finished: {} steps", done);
  std::string text = fmt::format("not finished: {} steps", done);
  if (state && state->horizon > 0) text += fmt::format(" of {}", state->horizon);
  const std::string written =
      last_written((fs::path(run_dir) / (steps.empty() ? "log.txt" : "metrics.jsonl")).string());
  if (!written.empty()) text += ", last written " + written;
  return error.empty() ? text : text + "; its log ends with the error: " + error;
}

std::string text_of(const Json& object, const char* key) {
  return object.contains(key) && object[key].is_string() ? object[key].get<std::string>() : "";
}

// What of memory.json the page reads; anything else is left out.
Json read_memory(const std::string& text) {
  const Json file = io::ordered_json_or_discarded(text);
  Json memory = Json::object();
  if (!file.is_object()) return memory;
  for (const char* key : {"predicted_bytes", "measured_bytes"})
    if (file.contains(key) && file[key].is_number()) memory[key] = file[key];
  if (!file.contains("lines") || !file["lines"].is_array()) return memory;
  for (const Json& line : file["lines"])
    if (line.is_object() && line.contains("bytes") && line["bytes"].is_number())
      memory["lines"].push_back({{"purpose", text_of(line, "purpose")},
                                 {"phase", text_of(line, "phase")},
                                 {"bytes", line["bytes"]}});
  return memory;
}

// Of memory.json, or else of what older versions said in log.txt; null if neither says anything.
Json memory_of(const std::string& run_dir, const std::string& log, const MetricsColumns& metrics) {
  Json memory = read_memory(text_in(run_dir, trainer::kMemoryFile));
  if (memory.empty()) {
    constexpr double kMegabyte = 1e6;
    double predicted = 0, measured = 0;
    const size_t at = log.rfind("memory: ");
    if (at != std::string::npos &&
        std::sscanf(log.c_str() + at, "memory: %lf MB predicted, %lf MB measured", &predicted,
                    &measured) == 2) {
      memory["predicted_bytes"] = predicted * kMegabyte;
      memory["measured_bytes"] = measured * kMegabyte;
    }
  }
  if (const auto peaks = numbers_of(metrics.steps, "peak_memory_bytes"); !peaks.empty())
    memory["peak_bytes"] = peaks.back();
  return memory.empty() ? Json(nullptr) : memory;
}

Json samples_of(const std::string& text) {
  Json samples = Json::array();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const Json json = io::ordered_json_or_discarded(line);
    if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer() ||
        !json.contains("samples"))
      continue;
    for (const Json& sample : json["samples"])
      if (sample.is_object())
        samples.push_back({{"step", json["step"]},
                           {"prompt", text_of(sample, "prompt")},
                           {"answer", text_of(sample, "answer")}});
  }
  return samples;
}

std::optional<trainer::TrainState> newest_state(const std::string& run_dir) {
  const auto newest = trainer::newest_checkpoint(run_dir, trainer::Look::kAdapter);
  if (!newest.whole) return std::nullopt;
  return trainer::read_train_state(*newest.whole);
}

std::string name_of_run(const std::string& run_dir) {
  const fs::path path = fs::absolute(run_dir).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

// Runs of the same name get their paths as names.
void name_apart(Json& runs) {
  std::map<std::string, int> counts;
  for (const Json& run : runs) ++counts[run["name"].get<std::string>()];
  for (Json& run : runs)
    if (counts[run["name"].get<std::string>()] > 1) run["name"] = run["path"];
}

// Keys whose values are not the same in all recipes.
Json differences(const std::vector<Recipe>& recipes) {
  Json all = Json::array();
  for (const Section& section : sections())
    for (const Field<Recipe>& field : section.fields) {
      std::vector<std::string> values;
      bool differ = false;
      for (const Recipe& recipe : recipes) {
        values.push_back(to_yaml(field.write(recipe)));
        differ = differ || values.back() != values.front();
      }
      if (differ && section.name != "output")
        all.push_back(Json::array({section.name + "." + field.key, values}));
    }
  return all;
}

}  // namespace

Json run_record(const std::string& run_dir, const RunRecordOptions& options) {
  const Recipe recipe = read_run_recipe(run_dir);
  // What lies there then is another run's, whose recipe this is not. The log is of both.
  const bool has_begun = !is_being_replaced(run_dir);
  const auto own_text = [&](const char* name) { return has_begun ? text_in(run_dir, name) : ""; };
  const MetricsColumns metrics = metrics_columns(own_text("metrics.jsonl"));
  const std::string log_text = text_in(run_dir, "log.txt");
  const Json log = last_lines(log_text);
  const bool finished = has_begun && has_adapter(run_dir);
  const auto state = has_begun ? newest_state(run_dir) : std::nullopt;
  std::string note;
  Json rows = first_rows(recipe, options.num_rows, note);
  return {{"name", name_of_run(run_dir)},
          {"path", run_dir},
          {"finished", finished},
          {"status", status_of(run_dir, finished, metrics, state, last_error(log))},
          {"facts", run_facts(recipe, metrics, state)},
          {"steps", metrics.steps},
          {"evaluations", metrics.evaluations},
          {"memory", has_begun ? memory_of(run_dir, log_text, metrics) : Json(nullptr)},
          {"rows", std::move(rows)},
          {"rows_note", note},
          {"samples", samples_of(own_text("samples.jsonl"))},
          {"checks", has_begun ? run_checks(run_dir, options.exports) : Json::array()},
          {"recipe", text_in(run_dir, has_begun ? kRecipeFile : kReplacingRecipe)},
          {"log", log}};
}

Json runs_record(const std::vector<std::string>& run_dirs, const RunRecordOptions& options) {
  Json record = {{"kind", "runs"}, {"title", ""}, {"runs", Json::array()}};
  std::string title;
  std::vector<Recipe> recipes;
  for (const std::string& run_dir : run_dirs) {
    RunRecordOptions own = options;
    if (!recipes.empty()) own.exports.clear();  // those of the first run
    record["runs"].push_back(run_record(run_dir, own));
    recipes.push_back(read_run_recipe(run_dir));
    title += (title.empty() ? "" : ", ") + name_of_run(run_dir);
  }
  record["title"] = title;
  name_apart(record["runs"]);
  record["differences"] = differences(recipes);
  return record;
}

std::string summary_of(const Json& record, size_t width) {
  constexpr size_t kColumn = 22;
  std::string text;
  const auto add = [&](const std::string& label, const std::string& value) {
    text += list_line("  " + shown_text(label), shown_text(value), kColumn, width);
  };
  for (const Json& run : record["runs"]) {
    text += fmt::format("{}{}: {}\n", text.empty() ? "" : "\n",
                        shown_text(run["path"].get<std::string>()),
                        shown_text(run["status"].get<std::string>()));
    for (const Json& fact : run["facts"])
      add(fact[0].get<std::string>(), fact[1].get<std::string>());
    if (const Json& memory = run["memory"]; memory.is_object() && memory.contains("measured_bytes"))
      add("memory", fmt::format("{:.0f} MB predicted, {:.0f} MB measured",
                                memory.value("predicted_bytes", 0.0) / 1e6,
                                memory.value("measured_bytes", 0.0) / 1e6));
    for (const Json& check : run["checks"])
      add(check[0].get<std::string>(), check[1].get<std::string>());
  }
  return text;
}

}  // namespace qlora::recipes

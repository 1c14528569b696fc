// What the files of a run say, for `qlora report`: whether it is done or not.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace qlora::recipes {

struct RunRecordOptions {
  int64_t num_rows = 3;              // of each dataset, shown as they are trained
  std::vector<std::string> exports;  // directories whose verification.json is shown
};

// {"name", "path", "finished", "status", "facts": [[label, text], ...], "steps" and "evaluations":
// {key: [numbers]} of metrics.jsonl by column (null where a line lacks the key), "memory", "rows",
// "rows_note", "samples": [{"step", "prompt", "answer"}, ...], "checks": [[label, text], ...],
// "recipe", "log"}. Of a run that is to replace another one and has not begun: no more than its
// recipe, the rows and the log. Reads alone, and no weights. ConfigError if `run_dir` is no run, or
// an export of the options has no verification.json.
nlohmann::ordered_json run_record(const std::string& run_dir, const RunRecordOptions& options);

// All of one page: {"kind": "runs", "title", "runs", "differences": [[key, [text of each run]],
// ...]}, the last of the keys of the recipes that are not the same in all runs. Runs of the same
// name get their paths as names.
nlohmann::ordered_json runs_record(const std::vector<std::string>& run_dirs,
                                   const RunRecordOptions& options);

// The same for a terminal: status, facts, memory and checks of each run.
std::string summary_of(const nlohmann::ordered_json& runs_record, size_t width);

}  // namespace qlora::recipes

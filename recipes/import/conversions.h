// Rows of the tools' tables, and how the values of their keys become ours.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "recipes/import/tool.h"

namespace qlora::recipes {

using Words = std::vector<std::pair<std::string, std::string>>;  // theirs, ours

// -- rows

// The value is ours as it stands.
ToolKey same(std::string name, std::string here, std::string note = "");
// data.sequence_length, of which no value (null) says that rows are not cut: a longer row is an
// error then. The tool's finish() tells of it.
ToolKey longest_row(std::string name);
// The key that names the base model, and the one beside it that names a revision on the hub: they
// are one here, org/name@REV.
std::vector<ToolKey> model_path(std::string name, std::string revision);
// true becomes `value` of our key; false says nothing.
ToolKey when_true(std::string name, std::string here, std::string value, std::string note = "");
// true and false, the other way round.
ToolKey inverted(std::string name, std::string here, std::string note = "");
// Words of theirs that are called otherwise here; other words stay.
ToolKey renamed(std::string name, std::string here, Words words, std::string note = "");
// A list, or one text with commas.
ToolKey list_of(std::string name, std::string here, Words words = {}, std::string note = "");
// Without effect here. The note says why, or what does its work.
ToolKey idle(std::string name, std::string note);
// Refused unless its value turns it off (false, 0, "none", an empty list, ...).
ToolKey refused(std::string name, std::string note);
// Read by a function of the tool.
ToolKey read_by(std::string name, std::string here, std::string note,
                std::function<void(const Found&, const ToolKey&, Draft&)> convert,
                std::string value = "");
// Many names with one note.
std::vector<ToolKey> idle_all(const std::vector<std::string>& names, const std::string& note);
std::vector<ToolKey> refused_all(const std::vector<std::string>& names, const std::string& note);

// -- keys that several tools have

// Names of optimizers as transformers, bitsandbytes and PyTorch have them.
ToolKey optimizer(std::string name);
// Names of transformers' schedules.
ToolKey schedule(std::string name);
// The map of arguments that transformers gives to a schedule.
ToolKey schedule_arguments(std::string name);
// Steps, or below 1 a share of them. `schedule` is the key of the schedule: transformers' constant
// has no warm-up.
ToolKey warmup(std::string name, std::string here, std::string schedule);
// Two keys that are one list here.
ToolKey beta(std::string name, std::string first, std::string second);
// Counts of steps; a share of all steps is refused.
ToolKey steps(std::string name, std::string here);
// true, false or a checkpoint.
ToolKey resume(std::string name);
ToolKey dtype(std::string name, std::string here);
// bf16 of tools that compute in float32 where neither it nor fp16 is on, unless one of `types`
// names a shorter type of the model, or is a switch of the file that brings one.
ToolKey bf16(std::vector<std::string> types);
// A share; a count of rows is refused.
ToolKey share(std::string name, std::string here);
// Built-in templates, and names of the model's own; others are refused.
ToolKey chat_template(std::string name);
ToolKey max_steps(std::string name);
// A dropout that the tool switches off in some trainings: `is_off_there` is asked of the whole
// file.
ToolKey dropout(std::string name, std::function<bool(const Node& root)> is_off_there,
                std::string reason);
// The map of what may be taken of each device, which has effect where blocks are placed by it.
ToolKey memory_limits(std::string name);
// The system message of rows that bring none, in every data set.
ToolKey system_message(std::string name);

// -- values

// The node with the types that YAML 1.1 and Python give it: True is true, "3e-4" is 3e-4.
Node plain(const Node& node);
bool is_true(const Node* node);
bool is_off(const Node& node);
// The value of a key beside `found`, or nullptr.
const Node* beside(const Found& found, const std::string& key);
// In the whole file, by "a.b".
const Node* in_file(const Node& root, const std::string& path);
// Its text, or `otherwise` if there is none.
std::string text(const Node* node, const std::string& otherwise = "");
std::vector<std::string> texts(const Node& node);  // a list, or one text with commas

}  // namespace qlora::recipes

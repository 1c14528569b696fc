// What a fine-tuning tool calls its keys and what they are here: one table a tool. An import walks
// the tables, and the hints at unknown keys of a recipe (recipes/fields/other_names.h) are made
// from them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "recipes/import/draft.h"

namespace qlora::recipes {

struct ToolKey {
  // "lora_r", "tokenizer.max_seq_len"; "wandb_*" is every key that begins so; "datasets[].type" is
  // of the entries of a list, which their reader looks up.
  std::string name;
  std::string here = {};    // our key; empty: there is none
  std::string note = {};    // how to write it, why it is without effect or why it is refused
  std::string value = {};   // what to write, where one value of ours is the same; YAML
  bool is_refused = false;  // its note says why
  // What an import does with it. Empty only of entries of lists: the reader of the list does.
  std::function<void(const Found&, const ToolKey&, Draft&)> convert = {};
  bool takes_null = false;  // convert() is asked of a key without a value too: that says something
};

// What holds in the tool where its file says nothing, and holds otherwise here.
struct ToolDefault {
  std::string here;
  std::string value;  // YAML
};

struct Tool {
  std::string name;   // of --from: "axolotl"
  std::string title;  // "Axolotl"
  std::vector<ToolKey> keys;
  std::vector<ToolDefault> defaults;
  // What the file as a whole says; may be empty.
  std::function<void(const Node& root, Draft&)> finish = {};
  // Why a file is not read at all whose keys only this tool has; an empty text: it is read, or is
  // of another tool. The function may be empty.
  std::function<std::string(const Node& root)> why_not_read = {};
};

Tool trl_tool();
Tool axolotl_tool();
Tool llama_factory_tool();
Tool torchtune_tool();
Tool peft_tool();

// In the order in which a name that several of them have is explained.
const std::vector<Tool>& tools();
// ConfigError that lists the names.
const Tool& find_tool(const std::string& name);
// The tool that knows most keys of the file, the first of equals, or one that says why it is not
// read. ConfigError if none knows any, or if the file is a recipe of this program.
const Tool& detect_tool(const Node& root);

// nullptr if the tool has no such key.
const ToolKey* find_key(const Tool& tool, const std::string& name);
// Whether the tool has keys within the map `name`.
bool has_keys_within(const Tool& tool, const std::string& name);

// Adds the rows of another table, where `keys` has no row of that name.
void add_missing(std::vector<ToolKey>& keys, const std::vector<ToolKey>& more);

}  // namespace qlora::recipes

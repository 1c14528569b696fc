// What other fine-tuning tools call the keys of a recipe: Hugging Face (transformers, PEFT, TRL),
// Axolotl, LLaMA-Factory, torchtune, LitGPT and surogate. Their users should be told our name, not
// that theirs is unknown. The names are those of the tables by which `qlora import` reads the files
// of these tools (recipes/import/tool.h), and a few of tools whose files are not imported.
#pragma once

#include <string>
#include <vector>

namespace qlora::recipes {

struct OtherName {
  // Theirs; "tokenizer.max_seq_len" where the section matters, "wandb_*" for all that begin so.
  std::string name;
  std::string here;        // our key; empty: there is none
  std::string note;        // how to write it, or why there is none
  std::string value = {};  // what to write, where one value of ours is the same; YAML
};

const std::vector<OtherName>& other_names();

// nullptr if no other tool uses the name. `section` may be empty; the name with its section comes
// first.
const OtherName* find_other_name(const std::string& section, const std::string& name);
// "it is optim.lr here", "it is lora.targets here: write q_proj (NOTE)", or the note alone.
std::string other_name_sentence(const OtherName& other);

}  // namespace qlora::recipes

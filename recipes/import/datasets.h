// Data sets of other tools as entries of data.train and data.eval.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "recipes/import/draft.h"
#include "recipes/import/tool.h"

namespace qlora::recipes {

// What a field is called that the other tool does not read, though a row may have a column of our
// name for it.
inline constexpr const char* kNoColumn = "none";

struct DraftedDataset {
  std::string path;
  std::string format = "chat";
  std::map<std::string, std::string> fields = {};  // ours -> theirs, where they differ
  std::vector<Node::Entry> more = {};              // other keys of the entry
  std::string missing = {};                        // what must be filled in

  // Names a field of the file, where it is another name than ours.
  void field(const std::string& ours, const std::string& theirs);
  Node node() const;
};

// Whether there is such a file or folder, beside the file of the other tool or where this program
// was started.
bool is_there(const std::string& path, const std::string& directory);

// Notes what is missing where `path` is no file but a name of the Hub: nothing is downloaded.
void look_for_rows(DraftedDataset& dataset, const Draft& draft);

// Adds the rows of an entry of another tool to data.train or data.eval (`list`): one entry a file
// that its data_files names, or that of its path.
void add_rows(const std::string& list, const DraftedDataset& dataset, const Node& entry,
              Draft& draft);

// The first of these files, or the path itself.
std::string first_file(const std::string& path, const Node& entry, const Draft& draft);

// Whether train.objective has been drafted as one that compares answers.
bool learns_preferences(const Draft& draft);

// Notes every key of one entry of a list by the tool's rows "LIST[].KEY": rows with a conversion
// are converted, the keys of the others are noted as read.
void take_entry_keys(const Found& found, const std::string& list, const Node& entry,
                     const Tool& tool, Draft& draft);

// -- Axolotl's rows of two answers

// The template that all types of such rows bring with them (type: chatml.ultra); empty: none does.
std::string template_of_axolotl_pairs(const Node& root);
void read_axolotl_pairs(const Node& entry, const Node& root, DraftedDataset& dataset);
// What these types do otherwise than the format does.
void tell_of_axolotl_pairs(const Node& entry, const DraftedDataset& dataset, Draft& draft);
// A key of a template, read as `otherwise` says unless such types bring another one.
ToolKey axolotl_template(std::string name, const ToolKey& otherwise);

// -- readers of the tools, for their tables

void read_trl_dataset_name(const Found& found, const ToolKey& key, Draft& draft);
void read_trl_text_field(const Found& found, const ToolKey& key, Draft& draft);
void read_trl_test_split(const Found& found, const ToolKey& key, Draft& draft);
void read_trl_datasets(const Found& found, const ToolKey& key, Draft& draft);
void read_axolotl_datasets(const Found& found, const ToolKey& key, Draft& draft);
void read_axolotl_type(const Found& found, const ToolKey& key, Draft& draft);
void read_axolotl_pretraining(const Found& found, const ToolKey& key, Draft& draft);
void read_llama_factory_datasets(const Found& found, const ToolKey& key, Draft& draft);
void read_torchtune_dataset(const Found& found, const ToolKey& key, Draft& draft);
// A list of such, which is refused as a whole where rows of one entry are not read.
void read_torchtune_datasets(const Found& found, const ToolKey& key, Draft& draft);

}  // namespace qlora::recipes

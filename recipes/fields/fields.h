// The keys of a recipe: one list a section. Reading, --set, writing back, comparing, did-you-mean
// and the reference page all walk these lists; a key is added here and nowhere else. Defaults are
// those of the options structs.
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "recipes/recipe.h"
#include "recipes/yaml/problems.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

// Whether a resumed run may have another value than the one it began with.
enum class OnResume { kFixed, kFree };

template <typename Owner>
struct Field {
  std::string key;   // within its section
  std::string type;  // for the reader: "integer", "number", "nf4 | none"
  std::string meaning;
  OnResume on_resume = OnResume::kFixed;
  std::string resume_effect = {};  // kFree: what a change does
  bool required = false;
  std::string shown_default = {};  // what the reference page says where one value is not all
  // (node, full key, problems, owner): decode() of field_values.h
  std::function<void(const Node&, const std::string&, ProblemList&, Owner&)> read = {};
  std::function<Node(const Owner&)> write = {};
  // Whether two values that are written otherwise come to the same; none: they never do.
  std::function<bool(const Owner&, const Owner&)> comes_to_the_same = {};
};

struct Section {
  std::string name;
  std::string meaning;
  std::vector<Field<Recipe>> fields;
  std::function<void(const Recipe&, Faults&)> find_faults;
};

const std::vector<Section>& sections();  // in the order in which a recipe is written
const std::vector<Field<data::DatasetOptions>>&
dataset_fields();                     // of data.train[] and data.eval[]
std::vector<std::string> all_keys();  // "model.path", ..., "data.train[].path", ...

// Why `key` is not one of `known` within `section` ("" for the top level, "lora", "data.train[0]"),
// and what the user may have meant; tells `problems` which key it suggested.
std::string unknown_key_sentence(const std::string& section, const std::string& key,
                                 const std::vector<std::string>& known, ProblemList& problems);

// Reads the entries of a map into `owner`; `path` is the key of the map.
template <typename Owner>
void read_fields(const Node& map, const std::string& path, const std::vector<Field<Owner>>& fields,
                 ProblemList& problems, Owner& owner) {
  for (const Node::Entry& entry : map.entries) {
    const std::string key = path + "." + entry.key;
    const Field<Owner>* found = nullptr;
    std::vector<std::string> known;
    for (const Field<Owner>& field : fields) {
      if (field.key == entry.key) found = &field;
      known.push_back(field.key);
    }
    if (!found) {
      problems.add(entry.place, unknown_key_sentence(path, entry.key, known, problems));
      continue;
    }
    problems.found(key, entry.place);
    if (entry.value.kind == Node::Kind::kNull) {
      problems.covered(key);
      problems.add(entry.place, key + " has no value; leave the key out if its default is meant");
    } else {
      found->read(entry.value, key, problems, owner);
    }
  }
}

}  // namespace qlora::recipes

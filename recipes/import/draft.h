// The recipe that an import is making: values of our keys, each with the key of theirs that it came
// from, and what became of every key of the file.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

struct Section;  // of a recipe: recipes/fields/fields.h

enum class Fate {
  kMapped,         // it is a key of the recipe
  kWithoutEffect,  // nothing is lost without it
  kRefused,        // it would change the run, and cannot be done
  kUnknown         // we know no such key of that tool
};

struct Outcome {
  std::string key;  // theirs: "lora_r", "tokenizer.max_seq_len"
  Place place;
  Fate fate = Fate::kMapped;
  std::string here;    // kMapped: our key
  std::string reason;  // of the others
};

// A key of the file while it is converted.
struct Found {
  const std::string& key;
  const Place& place;
  const Node& value;
  const Node& siblings;  // the map that it stands in
  const Node& root;      // the whole file
};

// A value of the recipe and where it comes from: "lora_r", "default of Axolotl" (default_origin()).
struct Drafted {
  Node value;
  std::string origin;
};

// What the file does not say and a recipe must: a commented line of it, and why.
struct FillIn {
  std::string here;
  std::string line;  // YAML: "path: org/name"
  std::string reason;
};

class Draft {
 public:
  // `directory` is that of the file, where other files are looked for.
  explicit Draft(std::string directory) : directory_(std::move(directory)) {}

  // `here` becomes `value`, unless this program refuses the value or another key of theirs has
  // given another one: then `found` is refused. Whether it fits other keys, which may come later in
  // the file, is asked by refuse_misfits().
  void set(const Found& found, const std::string& here, Node value);
  // The same for lists that several keys of theirs add to.
  void append(const Found& found, const std::string& here, const std::vector<std::string>& items);
  // An entry of data.train or data.eval, of our keys. `missing` says what must be filled in before
  // it can be read; empty: nothing. The key that told of it is taken by the caller.
  void add_dataset(const std::string& list, Node entry, const std::string& missing);
  // A key that each entry of both lists gets.
  void set_in_datasets(const Found& found, const std::string& key, Node value);
  // A key that was read together with another one.
  void take(const Found& found, const std::string& here);
  void without_effect(const Found& found, const std::string& reason);
  void refuse(const Found& found, const std::string& reason);
  void unknown(const Found& found, const std::string& reason);

  // What holds in the other tool where the file says nothing.
  void set_default(const std::string& here, Node value, const std::string& tool);
  // What follows from the file as a whole: `origin` says why, as the line's comment.
  void write(const std::string& here, Node value, const std::string& origin);
  // Takes a value back: its keys of theirs are without effect, for this reason.
  void withdraw(const std::string& here, const std::string& reason);
  // Takes those values back, and refuses their keys, that do not fit the others of their section:
  // what is wanting beside them is not there, now that the whole file has been read.
  void refuse_misfits();
  void fill_in(const std::string& here, const std::string& line, const std::string& reason);
  // Something about the run as a whole that no key of the file says; once, however often it is
  // said.
  void warn(const std::string& sentence);

  bool has(const std::string& here) const { return values_.contains(here); }
  std::string text_of(const std::string& here) const;  // YAML; empty if there is none
  bool has_datasets(const std::string& list) const;
  bool lacks(const std::string& here) const;  // neither set nor to be filled in

  const std::map<std::string, Drafted>& values() const { return values_; }
  const std::vector<Outcome>& outcomes() const { return outcomes_; }
  const std::vector<FillIn>& fill_ins() const { return fill_ins_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  const std::string& directory() const { return directory_; }
  // The entries of data.train or data.eval, with what each of them gets.
  std::vector<Node> datasets(const std::string& list) const;

 private:
  void note(const Found& found, Fate fate, const std::string& here, const std::string& reason);
  void take_back(const std::string& here, Fate fate, const std::string& reason);
  // The first value of a section that does not fit the others, and why; two empty texts: all fit.
  std::pair<std::string, std::string> misfit_of(const Section& section) const;

  std::string directory_;
  std::map<std::string, Drafted> values_;
  std::map<std::string, std::vector<Node>> datasets_;
  std::vector<Node::Entry> in_datasets_;
  std::vector<Outcome> outcomes_;
  std::vector<FillIn> fill_ins_;
  std::vector<std::string> warnings_;
};

// What a value that is the default of `tool` has as its origin.
std::string default_origin(const std::string& tool);

// Why this program does not take `value` for its key `here`; empty if it does. Only what this one
// key can say: what it needs beside it is taken to be there.
std::string problem_of_value(const std::string& here, const Node& value);

}  // namespace qlora::recipes

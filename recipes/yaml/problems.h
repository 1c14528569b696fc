// What is wrong with a recipe, gathered so that one run names everything, each with its place.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace qlora::recipes {

// Where a key or value stands: "recipe.yaml:3:5", or only the source for overrides ("--set
// lora.rank=x").
struct Place {
  std::string source;
  int line = 0, column = 0;  // from 1; 0: none
  std::string str() const;
};

class ProblemList {
 public:
  // `file` names the recipe where a problem has no place of its own.
  // `places` are those of its keys, of a recipe that was read before.
  explicit ProblemList(std::string file, std::map<std::string, Place> places = {})
      : file_(std::move(file)), places_(std::move(places)) {}

  void add(const Place& place, const std::string& sentence);
  // At the place of `key`, or of the nearest part of the recipe that holds it.
  void add(const std::string& key, const std::string& sentence);

  // Remembers where a key stands: "lora", "lora.rank", "data.train[0].path".
  void found(const std::string& key, const Place& place) { places_[key] = place; }
  bool was_found(const std::string& key) const { return places_.contains(key); }
  // A key that some problem is already about: its value could not be read, or another key's message
  // told the user to write this one. Sentences that name it would only repeat that.
  void covered(const std::string& key) { covered_.insert(key); }
  bool is_covered(const std::string& key) const { return covered_.contains(key); }
  bool names_covered_key(const std::string& sentence) const;
  // Whether a key is covered that lies in `part`: "data.train[0]" holds "data.train[0].format".
  bool is_covered_within(const std::string& part) const;
  const std::map<std::string, Place>& places() const { return places_; }

  bool empty() const { return problems_.empty(); }
  // ConfigError with one line a problem in the order of the file, overrides last; nothing if there
  // is none.
  void throw_if_any() const;

 private:
  struct Problem {
    Place place;
    std::string sentence;
  };
  std::string file_;
  std::vector<Problem> problems_;
  std::map<std::string, Place> places_;
  std::set<std::string> covered_;
};

}  // namespace qlora::recipes

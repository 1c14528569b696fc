// Rows of a dataset that are not what they must be, gathered so that one reading tells all of them:
// the first few with place and reason, the first of each kind, and how many more there are. Memory
// stays bounded whatever their number.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::data {

// The rows among which they are.
struct RowsRead {
  std::string path;
  int64_t rows = 0;
  bool are_all = true;  // false: the first ones of the dataset
};

class BadRows {
 public:
  // The next one in the order of the dataset. `reason`: a sentence without the place.
  void add(const std::string& place, const std::string& reason);

  bool empty() const { return count_ == 0; }
  // Whether every one of `rows` rows is bad, for a reason that is the same to the letter: it is
  // hardly the rows that are wrong.
  bool are_all_alike(int64_t rows) const { return count_ > 0 && count_ == rows && alike_; }

  // "place: reason" of one; of several a line each and how to go on.
  std::string to_text(const RowsRead& read) const;
  // FormatError with that text.
  void throw_if_any(const RowsRead& read) const;

 private:
  struct Kind {
    std::string pattern;  // reasons that differ in numbers alone are of one kind
    std::string first;    // place and beginning of the first one's reason
    int64_t without_line = 0;
  };
  std::string further() const;

  int64_t count_ = 0, of_other_kinds_ = 0;  // without a line and a kind
  bool alike_ = true;
  std::string first_reason_;
  std::vector<std::string> lines_;
  std::vector<Kind> kinds_;
};

}  // namespace qlora::data

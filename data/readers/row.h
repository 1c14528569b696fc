// One row of a dataset file as the readers see it: fields under our names, whatever the file calls
// them, and errors that say what is missing, what is there and what to write in the recipe.
// Messages leave out file and line; the caller, who knows them, puts them in front.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/example.h"
#include "nlohmann/json.hpp"

namespace qlora::data {

using Json = nlohmann::ordered_json;

class Row {
 public:
  // Both must outlive the row. FormatError if the row is not an object, or is preference data
  // (preference.h) of a dataset of another format, or a conversation about more than text
  // (message_content.h).
  Row(const Json& value, const DatasetOptions& dataset);

  const Json& value() const { return value_; }
  const DatasetOptions& dataset() const { return dataset_; }
  // What the file calls our field `name`: data.train[].fields, else the same name.
  const std::string& file_field(const std::string& name) const;

  // nullptr if the field is absent or null.
  const Json* find(const std::string& name) const;
  // FormatError with the fields that the row has and a suggestion if the field is absent.
  const Json& required(const std::string& name) const;
  // The field as a string; FormatError if it is something else.
  std::string text(const std::string& name) const;
  std::optional<std::string> optional_text(const std::string& name) const;
  // The field as an array, which may be written as JSON in a string (tables have no other way);
  // FormatError if it is something else.
  Json array(const std::string& name) const;

 private:
  std::string suggestion(const std::string& missing) const;
  // The key of the row that other projects store our field `missing` under; empty: none.
  std::string other_name_of(const std::string& missing) const;

  const Json& value_;
  const DatasetOptions& dataset_;
};

// "a string", "an array", ...: what an error says was found.
std::string describe_type(const Json& value);
// The value itself in one short line.
std::string shown(const Json& value);

// "'data', a list of 23 objects": the member of a JSON object that rows may lie in, which messages
// of a conversation are not; empty if there is none.
std::string member_with_rows(const Json& object);

// The format whose fields the row has ("alpaca", "chat", ...), empty if none. For suggestions only.
std::string guess_format(const Json& row);

}  // namespace qlora::data

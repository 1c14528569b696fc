// The keys of a row that its reader does not read. Rows may carry what they like (an id, a source),
// but a key that says what is to be trained, or how much, must not be passed over in silence: data
// sets come with the words of every tool.
#pragma once

#include <map>
#include <set>
#include <string>

#include "data/example.h"
#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// Keys of the row, of its messages as "messages[].mask" (of a single one as "chosen.mask") and of
// the parts of their content as "messages[].content[].mask", with a value that is not null, that
// neither the format nor the chat template (its source; empty: none) reads and that are not known
// to be harmless, such as id, source or language.
std::set<std::string> unread_keys(const nlohmann::ordered_json& row, const DatasetOptions& dataset,
                                  const std::string& template_source);

// Whether a key's name sounds like a mask, a weight or a preference.
bool may_decide_training(const std::string& key);

// Whether data sets call so what an answer is to, or a part of it: "question", "context", "system".
bool may_belong_to_prompt(const std::string& key);

// Fields that `dataset` names a key for which a row may have: our field -> the key. Without those
// that every row must have, such as are read of messages, and key none, which says that there is no
// such field.
std::map<std::string, std::string> optional_fields(const DatasetOptions& dataset);

// Our field that the key may stand for, since `dataset` names another for it or none and other
// data sets call it so ("context" for alpaca's input); empty if there is none.
std::string field_it_may_be(const std::string& key, const DatasetOptions& dataset);

}  // namespace qlora::data

// The types that keys of a recipe may have: how each is read from YAML and written back.
// decode() leaves `value` as it is and adds a problem at the node if the node does not fit;
// decode(encode(x)) gives x.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/ordered_map.h"
#include "data/example.h"
#include "recipes/yaml/problems.h"
#include "recipes/yaml/yaml_node.h"

namespace qlora::recipes {

void decode(const Node& node, const std::string& key, ProblemList& problems, int& value);
void decode(const Node& node, const std::string& key, ProblemList& problems, int64_t& value);
void decode(const Node& node, const std::string& key, ProblemList& problems, uint64_t& value);
void decode(const Node& node, const std::string& key, ProblemList& problems, double& value);
void decode(const Node& node, const std::string& key, ProblemList& problems, bool& value);
// Text, in quotes or not; numbers count as text, true and false do not.
void decode(const Node& node, const std::string& key, ProblemList& problems, std::string& value);
// A list of texts; a single text is a list of one.
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<std::string>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::map<std::string, std::string>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            OrderedMap<int64_t>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            OrderedMap<double>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<int64_t>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<double>& value);
void decode(const Node& node, const std::string& key, ProblemList& problems, data::TrainOn& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            data::OnOverlength& value);
void decode(const Node& node, const std::string& key, ProblemList& problems,
            std::vector<data::DatasetOptions>& value);

// A word that may also be one of YAML's booleans: auto | true | false.
void decode_word_or_boolean(const Node& node, const std::string& key, ProblemList& problems,
                            std::string& value);

// A map, or a word that stands for the map in which the empty key has it: auto, {a: b}.
void decode_word_or_map(const Node& node, const std::string& key, ProblemList& problems,
                        std::map<std::string, std::string>& value);
Node encode_word_or_map(const std::map<std::string, std::string>& value);

Node encode(int value);
Node encode(int64_t value);
Node encode(uint64_t value);
Node encode(double value);  // the shortest text that reads back as the same number
Node encode(bool value);
Node encode(const std::string& value);
Node encode(const std::vector<std::string>& value);
Node encode(const std::map<std::string, std::string>& value);
Node encode(const OrderedMap<int64_t>& value);
Node encode(const OrderedMap<double>& value);
Node encode(const std::vector<int64_t>& value);
Node encode(const std::vector<double>& value);
Node encode(data::TrainOn value);
Node encode(data::OnOverlength value);
Node encode(const std::vector<data::DatasetOptions>& value);

}  // namespace qlora::recipes

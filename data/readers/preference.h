// Rows of preference data (DPO, ORPO, KTO, reward models), told by their keys: a chosen and a
// rejected answer, two answers to compare, several with scores, or one with a label that says
// whether it was liked, as a boolean, 0 or 1, or in words ("True", as cells of tables have it).
// Read as demonstrations they would teach what they reject. The first are what format preference
// reads (read_preference.cpp).
#pragma once

#include <string>

#include "data/example.h"
#include "nlohmann/json_fwd.hpp"

namespace qlora::data {

// FormatError that names the keys if `row`, an object, is preference data; nothing if
// `dataset.fields` maps one of the keys, as whoever trains on the preferred answers alone does.
void refuse_preference_data(const nlohmann::ordered_json& row, const DatasetOptions& dataset);

// What to do with a row of preference data that lacks 'chosen' for format preference; empty if it
// is none.
std::string advice_on_preference_data(const nlohmann::ordered_json& row,
                                      const DatasetOptions& dataset);

}  // namespace qlora::data

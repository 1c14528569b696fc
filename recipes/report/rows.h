// Rows as they are trained, as the page of report/page.h shows them.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "data/prepare.h"
#include "data/tokenizer.h"
#include "recipes/recipe.h"

namespace qlora::recipes {

// {"part", "source", "row", "side", "tokens", "supervised", "encoded", "spans": [[trained, text],
// ...]}; `part` says of which list of the recipe, "side" is empty, chosen or rejected.
nlohmann::ordered_json row_json(const std::string& part, const data::ExampleView& example,
                                const data::Tokenizer& tokenizer);

// The first `count` rows of each dataset of a recipe, tokenized anew, as an array of row_json().
// What is missing or wrong (model, rows, template) becomes `note`, which is left empty otherwise.
nlohmann::ordered_json first_rows(const Recipe& recipe, int64_t count, std::string& note);

// What the page of `qlora inspect data` is made from: reports, warnings and the first `num_rows`
// rows of each dataset (-1: all).
nlohmann::ordered_json data_record(const std::string& title, const data::PreparedData& data,
                                   const data::Tokenizer& tokenizer, int64_t num_rows);

}  // namespace qlora::recipes

// A few sentences to compare two models on where no rows are at hand.
#pragma once

#include <cstdint>
#include <vector>

#include "data/tokenizer.h"

namespace qlora::recipes {

std::vector<std::vector<int32_t>> sample_sentences(const data::Tokenizer& tokenizer);

}  // namespace qlora::recipes

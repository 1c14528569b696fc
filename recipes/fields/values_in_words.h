// The values of a key in a sentence, from the list that its field has, so that no sentence leaves
// out one that was added to it.
#pragma once

#include <string>

namespace qlora::recipes {

// "auto, bfloat16, float16 or float32" of "train.compute_dtype", a key whose type is such a list.
std::string values_in_words(const std::string& key);

}  // namespace qlora::recipes

// Whether two tokenizers are one to whoever trains and asks a model: the one that lies with an
// adapter may have been written by another program, or have tokens of its own.
#pragma once

#include <string>

#include "data/tokenizer.h"

namespace qlora::data {

// How the adapter's tokenizer differs from the model's: "token 512 is '<|im_start|>', in the
// model's no token". Empty if they have the same tokens, beginnings and ends of texts, and make the
// same ids of a few texts; a token for padding that the model's has not is no difference.
// `compares_eos`: whether another eos_token is one.
std::string token_difference(const Tokenizer& adapters, const Tokenizer& models, bool compares_eos);

}  // namespace qlora::data

// Do two descriptions compute the same of the same weights? What is asked of a file format before a
// model is written in it: can its reader tell what the model is.
#pragma once

#include <string>

#include "model/architecture.h"

namespace qlora::model {

// The first thing in which `found` computes otherwise than `wanted`: "the window of layer 3 is 0,
// not 4096"; empty if there is none. Numbers that went through fp32 are equal. Names, and biases of
// linear layers, which files tell by the tensors they have, are not compared; nor are the RoPE
// frequencies of `wanted` where they lie in a tensor of their own (llama3, longrope, divisors).
std::string first_difference(const Architecture& wanted, const Architecture& found);

}  // namespace qlora::model

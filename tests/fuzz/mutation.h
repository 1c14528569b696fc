// Small random changes of an input, for the moment that the targets run among the tests; libFuzzer
// has its own.
#pragma once

#include <random>
#include <string>
#include <vector>

namespace qlora::fuzz {

// One to four changes: bits flipped, bytes replaced, removed, doubled or exchanged, numbers made
// extreme, words inserted, pieces of `other` taken over. A function of the arguments and the
// generator's state alone.
std::string mutated(std::string bytes, const std::string& other,
                    const std::vector<std::string>& words, std::mt19937_64& random);

}  // namespace qlora::fuzz

// Which of a layer's experts threads compute side by side. With few rows each, an expert's products
// are too small to be divided among threads; whole experts are not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qlora::model {

// The experts that have rows, those with most first: the order in which threads take them, one
// whenever they are done with another. Among equals the lower expert comes first.
std::vector<size_t> most_rows_first(const std::vector<int64_t>& rows_of_expert);

// Whether threads that take experts so are done at about the same time: the one that works longest
// has at most a quarter more than its share.
bool are_shared_evenly(const std::vector<int64_t>& rows_of_expert, int threads);

}  // namespace qlora::model

// Weights of every format that is decoded for its products, made of random codes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "quant/frozen_weight.h"
#include "quant/grouped/grouped.h"

namespace qlora::bench {

// Groups of 128 columns with float16 scales and integer zeros, as GPTQ and AWQ leave them.
// `scattered`: the columns of a group lie anywhere in the row, as GPTQ's act order leaves them.
quant::GroupedTensor made_grouped(int64_t rows, int64_t columns, int bits, bool scattered);

struct MadeFormat {
  std::string name;
  std::function<std::unique_ptr<quant::FrozenWeight>(int64_t rows, int64_t columns)> make;
  int64_t unit = 64;  // of which columns are a multiple
};

// NF4 with double quantization first.
std::vector<MadeFormat> made_formats();

}  // namespace qlora::bench

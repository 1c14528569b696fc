// What part of an epoch each dataset has, by data.train[].weight. With weights w an epoch is as
// long as without them, in rows or tokens (data.mix_by), and dataset i has w_i / sum(w) of it: rows
// of a dataset that is to be smaller come in some epochs only, those of one that is to be larger
// several times. From epoch to epoch a dataset goes on where it stood (loader.h), so that its rows
// come equally often in the long run. A pair of answers is one row, with the tokens of both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/loader.h"

namespace qlora::data {

// Examples of each dataset in an epoch, or pairs where it has these, in the order of options.train;
// empty if none has a weight. By tokens these are so many examples of average length as make up the
// part. At least one of each dataset that has any.
std::vector<int64_t> examples_an_epoch(const DataOptions& options, const Examples& examples);

// What the first epoch deals out of each dataset, a line each: its share of rows and tokens, and
// how often an example or pair comes. Empty if no dataset has a weight.
std::string mixture_text(const DataOptions& options, const Loader& loader);

}  // namespace qlora::data

// What the owner of a run is told that an error has ended: what is saved, and what helps.
#pragma once

#include <string>

namespace qlora::recipes {

// Of a divergence, which a resumed run repeats step by step: how another run begins from one of the
// checkpoints of this one.
std::string way_out_of_divergence(const std::string& run_dir);

// Of a disk or an operating system that refused: what is saved and how to go on once it is mended.
std::string way_on_after_refusal(const std::string& run_dir);

}  // namespace qlora::recipes

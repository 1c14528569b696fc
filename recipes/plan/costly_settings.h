// Settings that make a run ten times as slow as it could be on this machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qlora::recipes {

struct MachineFacts {
  std::string compute_dtype;
  double operations_a_second = 0;          // of products in it; trainer/product_rate.h
  double float32_operations_a_second = 0;  // of the same products in float32
  int64_t planned_bytes = 0, free_bytes = 0;
  int threads = 0, cores = 0;  // of a rank
  bool on_gpu = false;
  int ranks = 1;         // on this machine
  bool goes_on = false;  // with the threads that it began with
};

// A sentence each: what is slow, by what it shows, and what to do.
std::vector<std::string> costly_settings(const MachineFacts& facts);

}  // namespace qlora::recipes

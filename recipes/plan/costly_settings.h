// Settings that make a run ten times as slow as it could be on this machine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qlora::recipes {

// Of products in the run's compute dtype, and of the same products in float32, in operations a
// second (trainer/product_rate.h).
struct ProductRates {
  double in_compute_dtype = 0, in_float32 = 0;

  // Whether products in the compute dtype take so much longer that a run is warned of it.
  bool is_costly() const;
};

// The best rates of several samples; each call measures one, in operations a second. What else the
// machine does can only lower a sample, so one that is not costly is believed at once, and costly
// rates only if they stay so in kMostSamples samples of both dtypes, taken in turns.
constexpr int kMostSamples = 8;
ProductRates best_rates(const std::function<double()>& in_compute_dtype,
                        const std::function<double()>& in_float32);

struct MachineFacts {
  std::string compute_dtype;
  ProductRates rates;
  int64_t planned_bytes = 0, free_bytes = 0;
  int threads = 0, cores = 0;  // of a rank
  bool on_gpu = false;
  int ranks = 1;         // on this machine
  bool goes_on = false;  // with the threads that it began with
};

// A sentence each: what is slow, by what it shows, and what to do.
std::vector<std::string> costly_settings(const MachineFacts& facts);

}  // namespace qlora::recipes

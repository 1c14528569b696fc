// Splits [0, count) into one contiguous range a thread. The split depends on `count`, `grain` and
// the thread count only, and no result may depend on the split: reductions happen inside a range's
// items.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace qlora {

// Threads that parallel_for uses; torch's own pool is set to the same number (see device.h).
inline int num_threads() { return omp_get_max_threads(); }

// Calls body(begin, end) on each thread's range; ranges hold at least `grain` items. An exception
// thrown in a body is rethrown to the caller. Inside a parallel region it runs serially.
template <typename Body>
void parallel_for(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return;
  const int64_t most = std::max<int64_t>(1, count / std::max<int64_t>(grain, 1));
  const int threads = static_cast<int>(std::min<int64_t>(num_threads(), most));
  if (threads == 1 || omp_in_parallel()) {
    body(int64_t{0}, count);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel num_threads(threads)
  {
    const int64_t n = omp_get_num_threads(), i = omp_get_thread_num();
    const int64_t begin = count * i / n, end = count * (i + 1) / n;
    try {
      if (begin < end) body(begin, end);
    } catch (...) {
#pragma omp critical(qlora_parallel_for)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace qlora

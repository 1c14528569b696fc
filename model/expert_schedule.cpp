#include "model/expert_schedule.h"

#include <algorithm>

namespace qlora::model {
namespace {

// What decoding an expert's weights takes, in rows that its products would have more.
constexpr int64_t kRowsOfDecoding = 32;

}  // namespace

std::vector<size_t> most_rows_first(const std::vector<int64_t>& rows_of_expert) {
  std::vector<size_t> order;
  for (size_t e = 0; e < rows_of_expert.size(); ++e)
    if (rows_of_expert[e] > 0) order.push_back(e);
  std::ranges::stable_sort(order, std::ranges::greater{},
                           [&](size_t e) { return rows_of_expert[e]; });
  return order;
}

bool are_shared_evenly(const std::vector<int64_t>& rows_of_expert, int threads) {
  std::vector<int64_t> loads(static_cast<size_t>(threads));
  int64_t total = 0;
  for (const size_t e : most_rows_first(rows_of_expert)) {
    const int64_t load = rows_of_expert[e] + kRowsOfDecoding;
    *std::ranges::min_element(loads) += load;
    total += load;
  }
  return 4 * threads * *std::ranges::max_element(loads) <= 5 * total;
}

}  // namespace qlora::model

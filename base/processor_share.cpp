#include "base/processor_share.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <system_error>
#include <utility>

namespace qlora {
namespace fs = std::filesystem;

ProcessorShare::ProcessorShare(fs::path root) : root_(std::move(root)), begin_(times(root_)) {}

double ProcessorShare::taken_by_others() const {
  const Times now = times(root_);
  // A thread that has ended takes its times with it.
  const auto ran = static_cast<double>(std::max<int64_t>(now.ran - begin_.ran, 0));
  const auto waited = static_cast<double>(std::max<int64_t>(now.waited - begin_.waited, 0));
  return waited > 0 ? waited / (ran + waited) : 0;
}

ProcessorShare::Times ProcessorShare::times(const fs::path& root) {
  Times sum;
  std::error_code ignored;  // without /proc there is nothing to add up
  for (const fs::directory_entry& thread :
       fs::directory_iterator(root / "proc/self/task", ignored)) {
    std::ifstream file(thread.path() / "schedstat");
    int64_t ran = 0, waited = 0;
    if (!(file >> ran >> waited)) continue;
    sum.ran += ran;
    sum.waited += waited;
  }
  return sum;
}

std::string taken_sentence(double taken_by_others) {
  constexpr double kQuiet = 0.2;
  if (taken_by_others < kQuiet) return "";
  return fmt::format(
      "measured while other programs had {:.0f} % of the processor time that this one wanted; "
      "without them steps are shorter",
      100 * taken_by_others);
}

}  // namespace qlora

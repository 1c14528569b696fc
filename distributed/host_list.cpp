#include "distributed/host_list.h"

#include <charconv>
#include <string_view>

#include "base/error.h"

namespace qlora::distributed {
namespace {

// A number at the begin of `text`, which it leaves.
int take_number(std::string_view& text, const std::string& list) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 1)
    fail<ConfigError>("SLURM_STEP_TASKS_PER_NODE is '{}', not a list like 2(x3),1", list);
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool take(std::string_view& text, std::string_view what) {
  if (!text.starts_with(what)) return false;
  text.remove_prefix(what.size());
  return true;
}

}  // namespace

std::string first_host(const std::string& list) {
  const size_t bracket = list.find('[');
  const size_t comma = list.find(',');
  std::string first = list.substr(0, std::min(bracket, comma));
  if (bracket < comma) {
    const size_t digits = list.find_first_not_of("0123456789", bracket + 1);
    if (digits == std::string::npos || digits == bracket + 1)
      fail<ConfigError>("SLURM_STEP_NODELIST is '{}', not a list like gpu[003-017]", list);
    first += list.substr(bracket + 1, digits - bracket - 1);
    const size_t close = list.find(']', digits);
    if (close == std::string::npos)
      fail<ConfigError>("SLURM_STEP_NODELIST is '{}', not a list like gpu[003-017]", list);
    first += list.substr(close + 1, list.find(',', close) - close - 1);
  }
  if (first.empty()) fail<ConfigError>("SLURM_STEP_NODELIST is '{}', which names no host", list);
  return first;
}

std::vector<int> tasks_of_nodes(const std::string& list) {
  std::vector<int> tasks;
  std::string_view left = list;
  do {
    const int count = take_number(left, list);
    int nodes = 1;
    if (take(left, "(x")) {
      nodes = take_number(left, list);
      if (!take(left, ")"))
        fail<ConfigError>("SLURM_STEP_TASKS_PER_NODE is '{}', not a list like 2(x3),1", list);
    }
    tasks.insert(tasks.end(), static_cast<size_t>(nodes), count);
  } while (take(left, ","));
  if (!left.empty())
    fail<ConfigError>("SLURM_STEP_TASKS_PER_NODE is '{}', not a list like 2(x3),1", list);
  return tasks;
}

}  // namespace qlora::distributed

#include "base/stop.h"

#include <fmt/format.h>

namespace qlora {
namespace {

std::atomic<const std::atomic<bool>*> obeyed{nullptr};

}  // namespace

std::string Stopped::to_text() const {
  if (total > 1) return fmt::format("{}, {} of {} {} done", phase, done, total, unit);
  if (done > 0) return fmt::format("{}, {} {} done", phase, done, unit);
  return phase;
}

std::string Stopped::to_sentence() const {
  const std::string where = to_text();
  return "stopped" + (where.empty() ? "" : ": " + where) +
         (where.empty() || may_have_written ? "" : "; nothing was written");
}

ObeyStop::ObeyStop(const std::atomic<bool>& flag) : before_(obeyed.exchange(&flag)) {}
ObeyStop::~ObeyStop() { obeyed = before_; }

bool stop_wanted() {
  const std::atomic<bool>* flag = obeyed.load(std::memory_order_relaxed);
  return flag != nullptr && flag->load(std::memory_order_relaxed);
}

void leave_if_stop_wanted() {
  if (stop_wanted()) throw Stopped();
}

}  // namespace qlora

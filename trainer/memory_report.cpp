#include "trainer/memory_report.h"

#include "base/device_memory.h"
#include "base/log.h"

namespace qlora::trainer {
namespace {

// By then every buffer has met its largest use but those that depend on the rows.
constexpr int64_t kReportedStep = 3;

}  // namespace

void MemoryReport::after_step() {
  if (++step_ != kReportedStep) return;
  log::info("memory: {:.0f} MB predicted, {:.0f} MB measured",
            static_cast<double>(predicted_) / 1e6,
            static_cast<double>(taken_memory_bytes(device_)) / 1e6);
}

}  // namespace qlora::trainer

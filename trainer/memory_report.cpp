#include "trainer/memory_report.h"

#include "base/device_memory.h"
#include "base/log.h"

namespace qlora::trainer {
namespace {

// With packed rows no two micro-batches have the same length, and memory grows for some steps.
constexpr int64_t kReportedStep = 10;

}  // namespace

void MemoryReport::after_step(bool last) {
  if (said_ || (++step_ < kReportedStep && !last)) return;
  said_ = true;
  log::info("memory: {:.0f} MB predicted, {:.0f} MB measured",
            static_cast<double>(predicted_) / 1e6,
            static_cast<double>(taken_memory_bytes(device_)) / 1e6);
}

}  // namespace qlora::trainer

#include "trainer/memory_report.h"

#include <nlohmann/json.hpp>

#include "base/device_memory.h"
#include "base/error.h"
#include "base/log.h"
#include "io/atomic_write.h"
#include "io/json_text.h"

namespace qlora::trainer {
namespace {

// With packed rows no two micro-batches have the same length, and memory grows for some steps.
constexpr int64_t kReportedStep = 10;

}  // namespace

void MemoryReport::after_step(bool last) {
  if (said_ || (++step_ < kReportedStep && !last)) return;
  said_ = true;
  const int64_t measured = taken_memory_bytes(device_);
  log::info("memory: {:.0f} MB predicted, {:.0f} MB measured",
            static_cast<double>(plan_.training_peak()) / 1e6, static_cast<double>(measured) / 1e6);
  write(measured);
}

void MemoryReport::write(int64_t measured) const {
  nlohmann::ordered_json json = {{"predicted_bytes", plan_.training_peak()},
                                 {"measured_bytes", measured},
                                 {"device", device_.str()},
                                 {"lines", nlohmann::ordered_json::array()}};
  for (const MemoryLine& line : plan_.lines)
    json["lines"].push_back(
        {{"purpose", line.purpose}, {"phase", name_of(line.phase)}, {"bytes", line.bytes}});
  try {
    io::write_file_atomically(path_, io::json_text(json, 2) + "\n");
  } catch (const IoError& error) {  // worth no run
    log::warning("{}", error.what());
  }
}

}  // namespace qlora::trainer

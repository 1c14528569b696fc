#include "distributed/failure_note.h"

#include <c10/util/Logging.h>

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace qlora::distributed {
namespace {

constexpr char kReason[] = "failure", kReaders[] = "failure/readers";

// c10d prints the frames of its stack on stderr where the store is gone. While this lives it does
// not.
class Silence {
 public:
  Silence() { FLAGS_caffe2_log_level = c10::GLOG_FATAL; }
  ~Silence() { FLAGS_caffe2_log_level = before_; }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

 private:
  int before_ = FLAGS_caffe2_log_level;
};

}  // namespace

void leave_failure(const Store& store, const std::string& why) noexcept {
  const Silence silence;
  try {
    store->compareSet(kReason, std::string(), why);
    store->add(kReaders, 1);
  } catch (const std::exception&) {
  }
}

std::string read_failure(const Store& store) noexcept {
  const Silence silence;
  try {
    if (!store->check({kReason})) return "";
    const std::vector<uint8_t> text = store->get(kReason);
    store->add(kReaders, 1);
    return {text.begin(), text.end()};
  } catch (const std::exception&) {
    return "";
  }
}

void wait_for_readers(const Store& store, int ranks) noexcept {
  constexpr int kLooks = 100;
  constexpr std::chrono::milliseconds kBetweenLooks(50);
  const Silence silence;
  try {
    for (int look = 0; look < kLooks && store->add(kReaders, 0) < ranks; ++look)
      std::this_thread::sleep_for(kBetweenLooks);
  } catch (const std::exception&) {
  }
}

}  // namespace qlora::distributed

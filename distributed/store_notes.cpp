#include "distributed/store_notes.h"

#include <chrono>
#include <thread>
#include <vector>

#include "distributed/silence.h"

namespace qlora::distributed {
namespace {

constexpr char kCome[] = "come", kReason[] = "departure", kReaders[] = "departure/readers";
// The first letter of a reason.
constexpr char kStopped = 's', kFailed = 'f';

}  // namespace

void come(const Store& store) { store->add(kCome, 1); }
int64_t num_come(const Store& store) { return store->add(kCome, 0); }

void leave_departure(const Store& store, const Departure& departure) noexcept {
  const Silence silence;
  try {
    store->compareSet(kReason, std::string(),
                      (departure.stopped ? kStopped : kFailed) + departure.why);
    store->add(kReaders, 1);
  } catch (const std::exception&) {
  }
}

std::optional<Departure> read_departure(const Store& store) noexcept {
  const Silence silence;
  try {
    if (!store->check({kReason})) return std::nullopt;
    const std::vector<uint8_t> text = store->get(kReason);
    store->add(kReaders, 1);
    if (text.empty()) return std::nullopt;
    return Departure{{text.begin() + 1, text.end()}, text.front() == kStopped};
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void wait_for_readers(const Store& store) noexcept {
  constexpr int kLooks = 100;
  constexpr std::chrono::milliseconds kBetweenLooks(50);
  const Silence silence;
  try {
    const int64_t ranks = num_come(store);
    for (int look = 0; look < kLooks && store->add(kReaders, 0) < ranks; ++look)
      std::this_thread::sleep_for(kBetweenLooks);
  } catch (const std::exception&) {
  }
}

}  // namespace qlora::distributed

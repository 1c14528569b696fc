#define USE_C10D_GLOO  // before the first header that asks for it

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstdlib>
#include <thread>

#include "base/stop.h"
#include "base/stopwatch.h"
#include "distributed/engine.h"
#include "distributed/own_address.h"
#include "distributed/silence.h"

namespace qlora::distributed {
namespace {

using std::chrono::milliseconds;

// A store that another process serves, or will: c10d tries for a second at a time, for it does not
// look whether a stop is wanted.
Store connect(const std::string& address, c10d::TCPStoreOptions options) {
  constexpr milliseconds kTry(1000), kBetweenTries(100);
  const milliseconds patience = options.timeout;
  options.timeout = std::min(patience, kTry);
  const Silence silence;
  const Stopwatch watch;
  while (true) {
    try {
      auto store = c10::make_intrusive<c10d::TCPStore>(address, options);
      store->setTimeout(patience);
      return store;
    } catch (const std::exception&) {
      leave_if_stop_wanted();
      if (watch.seconds() >= std::chrono::duration<double>(patience).count()) throw;
    }
    std::this_thread::sleep_for(kBetweenTries);
  }
}

}  // namespace

// With Gloo's own headers they are as large: gloo_headers/ declares nothing that lies in them.
static_assert(sizeof(c10d::ProcessGroupGloo) == 488 &&
              sizeof(c10d::ProcessGroupGloo::Options) == 176);

Store open_store(const Place& place, milliseconds patience) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(place.port);
  options.isServer = place.rank == 0 && !place.store_is_launchers;
  options.waitWorkers = false;
  options.timeout = patience;
  const Store store = options.isServer
                          ? Store(c10::make_intrusive<c10d::TCPStore>(place.address, options))
                          : connect(place.address, options);
  return c10::make_intrusive<c10d::PrefixStore>("qlora/" + std::to_string(place.attempt), store);
}

Engine gloo_engine(const Store& store, const Place& place, milliseconds patience) {
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  const auto options = c10d::ProcessGroupGloo::Options::create(patience);
  options->devices.push_back(interface != nullptr
                                 ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                 : c10d::ProcessGroupGloo::createDeviceForHostname(
                                       address_facing(place.address, place.port)));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, options);
}

}  // namespace qlora::distributed

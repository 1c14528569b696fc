#define USE_C10D_GLOO  // before the first header that asks for it

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <cstdlib>

#include "distributed/engine.h"
#include "distributed/own_address.h"

namespace qlora::distributed {

// With Gloo's own headers they are as large: gloo_headers/ declares nothing that lies in them.
static_assert(sizeof(c10d::ProcessGroupGloo) == 488 &&
              sizeof(c10d::ProcessGroupGloo::Options) == 176);

Store open_store(const Place& place, std::chrono::milliseconds patience) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(place.port);
  options.isServer = place.rank == 0 && !place.store_is_launchers;
  options.waitWorkers = false;
  options.timeout = patience;
  return c10::make_intrusive<c10d::PrefixStore>(
      "qlora/" + std::to_string(place.attempt),
      c10::make_intrusive<c10d::TCPStore>(place.address, options));
}

Engine gloo_engine(const Store& store, const Place& place, std::chrono::milliseconds patience) {
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  const auto options = c10d::ProcessGroupGloo::Options::create(patience);
  options->devices.push_back(interface != nullptr
                                 ? c10d::ProcessGroupGloo::createDeviceForInterface(interface)
                                 : c10d::ProcessGroupGloo::createDeviceForHostname(
                                       address_facing(place.address, place.port)));
  return c10::make_intrusive<c10d::ProcessGroupGloo>(store, place.rank, place.size, options);
}

}  // namespace qlora::distributed

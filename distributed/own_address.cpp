#include "distributed/own_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/error.h"

namespace qlora::distributed {
namespace {

struct Socket {
  explicit Socket(int family) : descriptor(socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor >= 0) close(descriptor);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  const int descriptor;
};

using Addresses = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Addresses addresses_of(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) fail<ConfigError>("MASTER_ADDR: {} is not known ({})", host, gai_strerror(error));
  return {found, &freeaddrinfo};
}

// A datagram socket that is connected sends nothing, but knows its own end.
std::string own_end(const addrinfo& to) {
  const Socket datagrams(to.ai_family);
  sockaddr_storage own{};
  socklen_t size = sizeof(own);
  char text[NI_MAXHOST];
  if (datagrams.descriptor < 0 || connect(datagrams.descriptor, to.ai_addr, to.ai_addrlen) != 0 ||
      getsockname(datagrams.descriptor, reinterpret_cast<sockaddr*>(&own), &size) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&own), size, text, sizeof(text), nullptr, 0,
                  NI_NUMERICHOST) != 0)
    return {};
  return text;
}

}  // namespace

std::string address_facing(const std::string& host, int port) {
  const Addresses all = addresses_of(host, port);
  for (const addrinfo* each = all.get(); each != nullptr; each = each->ai_next)
    if (std::string own = own_end(*each); !own.empty()) return own;
  fail<ConfigError>("MASTER_ADDR: no network leads to {} ({})", host, std::strerror(errno));
}

}  // namespace qlora::distributed

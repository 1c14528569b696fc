#include "tests/support/ranks.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "base/device.h"
#include "base/error.h"

namespace qlora::test {
namespace {

int call_as_rank(const distributed::Place& place, std::chrono::milliseconds patience,
                 const std::function<void(distributed::Group&)>& body) {
  try {
    set_num_threads(1);
    distributed::Group group(place, patience);
    body(group);
    group.meet();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d of %d: %s\n", place.rank, place.size, error.what());
    return 1;
  }
  return testing::Test::HasFailure() ? 1 : 0;
}

}  // namespace

int free_port() {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  check(bind(listener, generic, size) == 0 && getsockname(listener, generic, &size) == 0,
        "no free port");
  close(listener);
  return ntohs(address.sin_port);
}

std::vector<int> run_ranks(int size, const std::function<void(distributed::Group&)>& body,
                           std::chrono::milliseconds patience) {
  const int port = free_port();
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) {
    const pid_t child = fork();
    if (child == 0)
      _exit(call_as_rank({rank, size, rank, size, "127.0.0.1", port}, patience, body));
    children.push_back(child);
  }
  std::vector<int> codes;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    codes.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  }
  return codes;
}

}  // namespace qlora::test

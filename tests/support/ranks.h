// Several ranks on this machine: each is a child process of the test.
#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "distributed/group.h"

namespace qlora::test {

// A port of 127.0.0.1 that nobody listens on.
int free_port();

// Calls body(group) in `size` processes and returns what each ended with: 0, or 1 after a failed
// expectation or an exception, which are printed; 128 + n after signal n. Must be called before
// this process has computed anything on several threads.
std::vector<int> run_ranks(int size, const std::function<void(distributed::Group&)>& body,
                           std::chrono::milliseconds patience = std::chrono::seconds(60));

}  // namespace qlora::test

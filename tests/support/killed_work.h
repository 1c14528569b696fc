// Work that is killed at each of its system calls in turn. For test programs that are linked with
// qlora_kill_at_call.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "tests/support/kill_at_call.h"

namespace qlora::test {

// For n = 1, 2, ...: calls `prepare`, runs `work` in a child process that is killed at its nth call
// that changes a file, and calls `look` for what is left. Ends with the first n that the work does
// not reach, and gives the number of kills. `work` must not throw, and ends within a minute.
inline int64_t kill_at_each_call(const std::function<void()>& prepare,
                                 const std::function<void()>& work,
                                 const std::function<void()>& look) {
  constexpr int64_t kMost = 2000;
  constexpr unsigned kSecondsUntilHung = 60;
  for (int64_t number = 1; number <= kMost; ++number) {
    SCOPED_TRACE(testing::Message() << "killed at call " << number);
    prepare();
    const pid_t child = fork();
    if (child == 0) {
      alarm(kSecondsUntilHung);
      kill_at_call(number);
      try {
        work();
      } catch (...) {
        _exit(1);
      }
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    const bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    EXPECT_TRUE(killed || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        << (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "the work hung"
                                                               : "the work failed");
    look();
    if (testing::Test::HasFailure() || !killed) return number - 1;
  }
  ADD_FAILURE() << "the work has no end";
  return kMost;
}

}  // namespace qlora::test

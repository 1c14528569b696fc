#include "base/processor_share.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/stopwatch.h"
#include "tests/support/temp_dir.h"

namespace qlora {
namespace {

TEST(ProcessorShare, IsWhatAllThreadsWaitedOfTheTimeTheyWantedToRun) {
  test::TempDir root;
  root.write("proc/self/task/7/schedstat", "1000000 500000 3\n");
  root.write("proc/self/task/8/schedstat", "2000000 0 1\n");
  const ProcessorShare share(root.path());
  EXPECT_EQ(share.taken_by_others(), 0);
  root.write("proc/self/task/7/schedstat", "1400000 800000 5\n");  // 0.4 ms, waited 0.3
  root.write("proc/self/task/8/schedstat", "2200000 0 2\n");
  root.write("proc/self/task/9/schedstat", "0 100000 1\n");  // has begun since
  EXPECT_DOUBLE_EQ(share.taken_by_others(), 0.4);
}

TEST(ProcessorShare, IsNothingWhereTheKernelDoesNotSay) {
  const test::TempDir root;
  EXPECT_EQ(ProcessorShare(root.path()).taken_by_others(), 0);
}

TEST(ProcessorShare, IsToldOfFromAFifthOn) {
  EXPECT_EQ(taken_sentence(0), "");
  EXPECT_EQ(taken_sentence(0.19), "");
  EXPECT_EQ(taken_sentence(0.45),
            "measured while other programs had 45 % of the processor time that this one wanted; "
            "without them steps are shorter");
}

void compute(double seconds) {
  for (const Stopwatch watch; watch.seconds() < seconds;) {
  }
}

// Two processes on one processor: each has half of it, or less if there are still more.
TEST(ProcessorShare, SeesAnotherProgramOnTheSameProcessor) {
  if (access("/proc/self/schedstat", R_OK) != 0) GTEST_SKIP() << "the kernel counts no waiting";
  const pid_t measured = fork();
  if (measured == 0) {
    cpu_set_t cores, first;
    CPU_ZERO(&cores);
    CPU_ZERO(&first);
    int core = 0;
    if (sched_getaffinity(0, sizeof(cores), &cores) != 0) _exit(2);
    while (!CPU_ISSET(core, &cores)) ++core;
    CPU_SET(core, &first);
    if (sched_setaffinity(0, sizeof(first), &first) != 0) _exit(2);
    const pid_t other = fork();
    if (other == 0) {
      compute(10);
      _exit(0);
    }
    const ProcessorShare share;
    compute(0.5);
    const double taken = share.taken_by_others();
    kill(other, SIGKILL);
    waitpid(other, nullptr, 0);
    _exit(taken > 0.2 && taken < 1 ? 0 : 1);
  }
  int status = -1;
  waitpid(measured, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace qlora

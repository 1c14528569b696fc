#include "base/process_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cgroup.h"
#include "tests/support/temp_dir.h"

namespace qlora {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

// A process that has 60 MB of addresses and 20 MB of data, on a machine with 1000 MB to give.
class Process {
 public:
  explicit Process(const std::string& addresses, const std::string& data) {
    files_.write("proc/self/limits",
                 "Limit                     Soft Limit           Hard Limit           Units     \n"
                 "Max cpu time              unlimited            unlimited            seconds   \n"
                 "Max data size             " +
                     data +
                     "            unlimited            bytes\n"
                     "Max address space         " +
                     addresses + "       unlimited            bytes\n");
    files_.write("proc/self/status", "Name:\tqlora\nVmSize:\t   61440 kB\nVmData:\t 20480 kB\n");
    files_.write("proc/meminfo", "MemTotal: 2048000 kB\nMemAvailable:   1024000 kB\n");
  }
  std::optional<ProcessLimit> limit() const { return process_limit(files_.path()); }
  int64_t usable(int processes = 1) const {
    return usable_memory_bytes(files_.path(), processes) / kMegabyte;
  }

 private:
  test::TempDir files_;
};

std::string megabytes(int64_t count) { return std::to_string(count * kMegabyte); }

TEST(ProcessLimit, IsTheOneThatLeavesLess) {
  const Process by_addresses(megabytes(100), megabytes(100));
  ASSERT_TRUE(by_addresses.limit());
  EXPECT_EQ(by_addresses.limit()->option, "-v");
  EXPECT_EQ(by_addresses.limit()->bytes, 100 * kMegabyte);
  EXPECT_EQ(by_addresses.limit()->free_bytes, 40 * kMegabyte);
  const Process by_data(megabytes(100), megabytes(50));
  EXPECT_EQ(by_data.limit()->option, "-d");
  EXPECT_EQ(by_data.limit()->free_bytes, 30 * kMegabyte);
  EXPECT_EQ(Process(megabytes(10), "unlimited").limit()->free_bytes, 0);
}

TEST(ProcessLimit, IsNoneWhereNoneIsSet) {
  EXPECT_FALSE(Process("unlimited", "unlimited").limit());
  EXPECT_EQ(Process("unlimited", "unlimited").usable(), 1000);
  const test::TempDir without_such_files;
  EXPECT_FALSE(process_limit(without_such_files.path()));
}

TEST(ProcessLimit, BoundsEachProcessAloneAndTheMachineAllOfThem) {
  const Process process(megabytes(460), "unlimited");
  EXPECT_EQ(process.usable(1), 400);
  EXPECT_EQ(process.usable(2), 400);
  EXPECT_EQ(process.usable(4), 250);
}

// The kernel's own files.
TEST(ProcessLimit, IsSeenWhereTheSystemSetsIt) {
  constexpr int64_t kLimit = int64_t{1} << 50;
  const pid_t child = fork();
  if (child == 0) {
    rlimit limit{};
    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = kLimit;
    const bool set = setrlimit(RLIMIT_AS, &limit) == 0;
    const auto seen = process_limit();
    const bool right = seen && seen->option == "-v" && seen->bytes == kLimit &&
                       seen->free_bytes > 0 && seen->free_bytes < kLimit;
    _exit(!set || right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace qlora

#include "base/cgroup.h"

#include <gtest/gtest.h>

#include <omp.h>

#include "tests/support/temp_dir.h"

namespace qlora {
namespace {

constexpr int64_t kMegabyte = 1 << 20;

// A machine made of files, with v2 groups mounted at /sys/fs/cgroup.
class Machine {
 public:
  explicit Machine(const std::string& own_group = "/", const std::string& mounted_group = "/") {
    write("proc/self/cgroup", "0::" + own_group + "\n");
    write("proc/self/mountinfo",
          "22 1 0:5 / /proc rw,nosuid shared:5 - proc proc rw\n"
          "31 22 0:27 " +
              mounted_group + " /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n");
    write("proc/meminfo", "MemTotal: 65536 kB\nMemAvailable:   16384 kB\n");
  }
  void write(const std::string& file, const std::string& text) const { files_.write(file, text); }
  void group(const std::string& file, const std::string& text) const {
    files_.write("sys/fs/cgroup/" + file, text);
  }
  std::string root() const { return files_.path(); }
  GroupLimits limits() const { return group_limits(root()); }

 private:
  test::TempDir files_;
};

// Hierarchies of version 1, as a container sees them: its own group is all that is mounted.
void mount_version1(const Machine& machine) {
  machine.write("proc/self/cgroup",
                "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/x\n0::/\n");
  machine.write(
      "proc/self/mountinfo",
      "30 22 0:26 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
      "31 22 0:27 /docker/abc /sys/fs/cgroup/memory ro shared:1 - cgroup cgroup rw,memory\n"
      "32 22 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
}

TEST(Cgroup, AQuotaOfOneAndAHalfCoresRunsTwoThreads) {
  const Machine machine;
  machine.group("cpu.max", "150000 100000\n");
  ASSERT_TRUE(machine.limits().cores.has_value());
  EXPECT_DOUBLE_EQ(*machine.limits().cores, 1.5);
  EXPECT_EQ(cores_within(machine.limits(), 8), 2);
}

TEST(Cgroup, AQuotaOfATenthOfACoreStillRunsOneThread) {
  const Machine machine;
  machine.group("cpu.max", "10000 100000\n");
  EXPECT_EQ(cores_within(machine.limits(), 8), 1);
}

TEST(Cgroup, AQuotaAboveTheMachineLeavesTheMachine) {
  const Machine machine;
  machine.group("cpu.max", "1600000 100000\n");
  EXPECT_EQ(cores_within(machine.limits(), 8), 8);
}

TEST(Cgroup, MaxAndMissingFilesSetNoLimit) {
  const Machine machine;
  EXPECT_FALSE(machine.limits().cores.has_value());
  machine.group("cpu.max", "max 100000\n");
  machine.group("memory.max", "max\n");
  machine.group("memory.current", "4096\n");
  EXPECT_FALSE(machine.limits().cores.has_value());
  EXPECT_FALSE(machine.limits().free_bytes.has_value());
  EXPECT_EQ(cores_within(machine.limits(), 8), 8);
}

TEST(Cgroup, AMachineWithoutGroupsHasNoLimit) {
  const test::TempDir nothing;
  EXPECT_FALSE(group_limits(nothing.path()).cores.has_value());
  EXPECT_FALSE(group_limits(nothing.path()).free_bytes.has_value());
}

TEST(Cgroup, TheTightestOfAllGroupsAboveCounts) {
  const Machine machine("/batch/job/task");
  machine.group("batch/cpu.max", "400000 100000\n");
  machine.group("batch/job/cpu.max", "300000 100000\n");
  machine.group("batch/job/task/cpu.max", "max 100000\n");
  machine.group("other/cpu.max", "100000 100000\n");
  EXPECT_DOUBLE_EQ(machine.limits().cores.value(), 3.0);

  machine.group("batch/memory.max", std::to_string(900 * kMegabyte));
  machine.group("batch/memory.current", std::to_string(880 * kMegabyte));
  machine.group("batch/job/task/memory.max", std::to_string(100 * kMegabyte));
  machine.group("batch/job/task/memory.current", std::to_string(10 * kMegabyte));
  EXPECT_EQ(machine.limits().free_bytes.value(), 20 * kMegabyte)
      << "the batch has 20 MB left, though the task may take 90 MB";
}

TEST(Cgroup, PageCacheThatCanBeDroppedIsFree) {
  const Machine machine;
  machine.group("memory.max", std::to_string(100 * kMegabyte));
  machine.group("memory.current", std::to_string(80 * kMegabyte));
  machine.group("memory.stat", "anon 10\nactive_file 5\ninactive_file " +
                                   std::to_string(30 * kMegabyte) + "\nunevictable 0\n");
  EXPECT_EQ(machine.limits().free_bytes.value(), 50 * kMegabyte);
}

TEST(Cgroup, AGroupBeyondItsLimitHasNothingFree) {
  const Machine machine;
  machine.group("memory.max", std::to_string(100 * kMegabyte));
  machine.group("memory.current", std::to_string(130 * kMegabyte));
  EXPECT_EQ(machine.limits().free_bytes.value(), 0);
}

TEST(Cgroup, TheLimitAtWhichTheKernelThrottlesCountsToo) {
  const Machine machine;
  machine.group("memory.max", "max");
  machine.group("memory.high", std::to_string(50 * kMegabyte));
  machine.group("memory.current", std::to_string(20 * kMegabyte));
  EXPECT_EQ(machine.limits().free_bytes.value(), 30 * kMegabyte);
}

TEST(Cgroup, AMountOfTheContainersOwnGroupIsReadAtItsTop) {
  const Machine machine("/kubepods/pod7/c1", "/kubepods/pod7/c1");
  machine.group("cpu.max", "250000 100000\n");
  EXPECT_DOUBLE_EQ(machine.limits().cores.value(), 2.5);
}

TEST(Cgroup, AGroupOutsideOfTheNamespaceFallsBackToWhatIsMounted) {
  const Machine machine("/../../elsewhere");
  machine.group("cpu.max", "200000 100000\n");
  EXPECT_DOUBLE_EQ(machine.limits().cores.value(), 2.0);
}

TEST(Cgroup, Version1IsReadInEachHierarchyOfItsOwn) {
  const Machine machine;
  mount_version1(machine);
  machine.group("cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
  machine.group("cpu,cpuacct/cpu.cfs_period_us", "50000\n");
  machine.group("memory/memory.limit_in_bytes", std::to_string(64 * kMegabyte));
  machine.group("memory/memory.usage_in_bytes", std::to_string(60 * kMegabyte));
  machine.group("memory/memory.stat",
                "inactive_file 1\ntotal_inactive_file " + std::to_string(40 * kMegabyte) + "\n");
  EXPECT_DOUBLE_EQ(machine.limits().cores.value(), 3.0);
  EXPECT_EQ(machine.limits().free_bytes.value(), 44 * kMegabyte);
}

TEST(Cgroup, Version1WithoutQuotaSetsNoLimit) {
  const Machine machine;
  mount_version1(machine);
  machine.group("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  machine.group("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  machine.group("memory/memory.limit_in_bytes", "9223372036854771712\n");
  machine.group("memory/memory.usage_in_bytes", "5000000\n");
  EXPECT_FALSE(machine.limits().cores.has_value());
  EXPECT_FALSE(machine.limits().free_bytes.has_value());
}

TEST(Cgroup, UsableMemoryIsTheSmallerOfMachineAndGroup) {
  const Machine machine;
  EXPECT_EQ(usable_memory_bytes(machine.root()), 16 * kMegabyte);
  machine.group("memory.max", std::to_string(100 * kMegabyte));
  machine.group("memory.current", std::to_string(95 * kMegabyte));
  EXPECT_EQ(usable_memory_bytes(machine.root()), 5 * kMegabyte);
  // What version 1 says where no limit is set.
  machine.group("memory.max", "9223372036854771712");
  EXPECT_EQ(usable_memory_bytes(machine.root()), 16 * kMegabyte);
}

TEST(Cgroup, UsableCoresAreNoMoreThanTheAffinityMask) {
  const Machine machine;
  EXPECT_EQ(usable_cores(machine.root()), omp_get_num_procs());
  machine.group("cpu.max", "100000 100000\n");
  EXPECT_EQ(usable_cores(machine.root()), 1);
}

}  // namespace
}  // namespace qlora

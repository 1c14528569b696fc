#include "io/live_mappings.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "io/atomic_write.h"
#include "io/mapped_file.h"
#include "tests/support/temp_dir.h"

namespace qlora::io {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr size_t kBytes = 100'000;

// Sets the time of the last change to another than that which the clock gives.
void note_change(const std::string& path) {
  fs::last_write_time(path, fs::last_write_time(path) + std::chrono::seconds(1));
}

int read_behind_the_end(const std::string& path) {
  report_lost_mappings();
  const auto mapped = MappedFile::open(path);
  fs::resize_file(path, 10);
  const volatile std::byte* bytes = mapped->bytes().data();
  return static_cast<int>(bytes[kBytes - 1]);
}

void read_lost_bytes_of_another() {
  report_lost_mappings();
  const test::TempDir dir;
  const std::string path = dir.write("a", std::string(kBytes, 'a'));
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* mapped = mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file, 0);
  fs::resize_file(path, 10);
  const volatile char* bytes = static_cast<const char*>(mapped);
  (void)bytes[kBytes - 1];
}

TEST(LiveMappings, AFileThatBecomesShorterEndsTheProcessWithItsName) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", std::string(kBytes, 'a'));
  EXPECT_EXIT(read_behind_the_end(path), testing::ExitedWithCode(1),
              "error: .*/weights became shorter, or its disk failed, while it was in use");
}

TEST(LiveMappings, OtherFaultsHaveTheEffectThatTheyHaveWithout) {
  EXPECT_EXIT(read_lost_bytes_of_another(), testing::KilledBySignal(SIGBUS), "");
  EXPECT_EXIT(
      {
        report_lost_mappings();
        raise(SIGBUS);
      },
      testing::KilledBySignal(SIGBUS), "");
}

TEST(LiveMappings, AChangedFileIsNamedWhileItIsMapped) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", "abc");
  auto mapped = MappedFile::open(path);
  EXPECT_NO_THROW(require_mapped_unchanged());
  note_change(path);
  EXPECT_THAT([] { require_mapped_unchanged(); },
              ThrowsMessage<IoError>(HasSubstr("/weights was written to, or its time was set")));
  fs::resize_file(path, 4);
  EXPECT_THAT([] { require_mapped_unchanged(); },
              ThrowsMessage<IoError>(HasSubstr("/weights was changed while it was in use")));
  mapped.reset();
  EXPECT_NO_THROW(require_mapped_unchanged());
}

TEST(LiveMappings, AnotherTimeIsNoChangeWhereTheBytesAreKnownToBeTheSame) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", "abc");
  const auto mapped = MappedFile::open(path);
  int asked = 0;
  bool same = true;
  {
    const MappedBytesCheck check([&] {
      ++asked;
      return same;
    });
    EXPECT_NO_THROW(require_mapped_unchanged());
    EXPECT_EQ(asked, 0);
    note_change(path);
    for (int i = 0; i < 2; ++i) EXPECT_NO_THROW(require_mapped_unchanged());
    EXPECT_EQ(asked, 1);
    same = false;
    note_change(path);
    for (int i = 0; i < 2; ++i)
      EXPECT_THAT([] { require_mapped_unchanged(); },
                  ThrowsMessage<IoError>(HasSubstr("/weights was changed while it was in use")));
    same = true;
    fs::resize_file(path, 4);
    EXPECT_THROW(require_mapped_unchanged(), IoError);
  }
  EXPECT_EQ(asked, 3);
  EXPECT_THROW(require_mapped_unchanged(), IoError);
}

TEST(LiveMappings, AFileWhoseChangesDoNotMatterMayChange) {
  const test::TempDir dir;
  const std::string path = dir.write("entry", "abc");
  const auto mapped = MappedFile::open(path, WhenChanged::kIgnore);
  note_change(path);
  EXPECT_NO_THROW(require_mapped_unchanged());
}

TEST(LiveMappings, AFileThatAnotherReplacesOrThatIsRemovedStaysWhatItWas) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", "abc");
  const auto mapped = MappedFile::open(path);
  write_file_atomically(path, "another");
  EXPECT_NO_THROW(require_mapped_unchanged());
  fs::remove(path);
  EXPECT_NO_THROW(require_mapped_unchanged());
  EXPECT_EQ(mapped->bytes().size(), 3u);
}

TEST(LiveMappings, WhatMayBeMadeOfAChangedFileGetsNoName) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", "abc");
  const auto mapped = MappedFile::open(path);
  {
    AtomicDirectory target(dir / "out");
    note_change(path);
    EXPECT_THROW(target.commit(), IoError);
  }
  EXPECT_FALSE(fs::exists(dir / "out"));
}

TEST(LiveMappings, MoreThanThereIsRoomForAreMappedAllTheSame) {
  const test::TempDir dir;
  const std::string path = dir.write("weights", "abc");
  std::vector<std::shared_ptr<const MappedFile>> many;
  for (int i = 0; i < 600; ++i) many.push_back(MappedFile::open(path));
  EXPECT_EQ(many.back()->bytes().size(), 3u);
  EXPECT_NO_THROW(require_mapped_unchanged());
}

}  // namespace
}  // namespace qlora::io

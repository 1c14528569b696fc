#include "base/out_of_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora {
namespace {
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string told(std::string_view words, const std::string& phase = "") {
  const auto refusal = memory_refusal(words);
  return refusal ? to_text(*refusal, phase) : "not about memory";
}

TEST(OutOfMemory, OfTorchsCpuAllocatorItSaysHowMuchWasAskedFor) {
  const char* words =
      "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: "
      "you tried to allocate 17179869184 bytes. Error code 12 (Cannot allocate memory)\nframe #0: "
      "c10::ThrowEnforceNotMet(char const*, int) + 0x6c";
  EXPECT_THAT(
      told(words, "step 3 of 30"),
      AllOf(StartsWith(
                "more memory was asked for than the system gives this process: 17.2 GB at once "
                "(step 3 of 30); in training, lower train.micro_batch_size"),
            HasSubstr("data.sequence_length"), HasSubstr("train.gradient_checkpointing"),
            HasSubstr("qlora plan"), Not(HasSubstr("frame #0")), Not(HasSubstr("\n"))));
}

TEST(OutOfMemory, OfAGpuItSaysWhatIsFreeToo) {
  const char* words =
      "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of "
      "which 1.30 GiB is free. Process 1 has 77.80 GiB memory in use.";
  EXPECT_THAT(told(words), AllOf(StartsWith("more memory was asked for than the GPU has: 2.00 GiB "
                                            "at once, where 1.30 GiB are free; in training"),
                                 Not(HasSubstr("damaged"))));
  EXPECT_THAT(told("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
              StartsWith("more memory was asked for than the GPU has; in training"));
}

TEST(OutOfMemory, ItSaysItsOwnSize) {
  EXPECT_THAT(told(OutOfMemory(5000000).what()), HasSubstr("gives this process: 5.0 MB at once;"));
  EXPECT_THAT(told(OutOfMemory(17).what()), HasSubstr("gives this process: 17 bytes at once;"));
  EXPECT_THAT(told(std::bad_alloc().what()),
              StartsWith("more memory was asked for than the system gives this process;"));
}

TEST(OutOfMemory, TheProcesssOwnLimitIsNamedWhereOneIsSet) {
  MemoryRefusal refusal{.on_gpu = false, .asked = "3.5 MB", .free = "", .limit = {}};
  EXPECT_THAT(to_text(refusal, ""), Not(HasSubstr("limit")));
  refusal.limit = ProcessLimit{"-v", 921'600'000, 0};
  EXPECT_THAT(to_text(refusal, "reading the base"),
              StartsWith("more memory was asked for than the system gives this process: 3.5 MB at "
                         "once (reading the base); the process may have 921.6 MB (ulimit -v); in "
                         "training"));
  refusal.on_gpu = true;
  EXPECT_THAT(to_text(refusal, ""), Not(HasSubstr("ulimit")));
}

TEST(OutOfMemory, OtherWordsAreLeftAlone) {
  EXPECT_FALSE(memory_refusal("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"));
  EXPECT_FALSE(memory_refusal(""));
  EXPECT_THAT(told("DefaultCPUAllocator: can't allocate memory: you tried to allocate much"),
              StartsWith("more memory was asked for than the system gives this process;"));
}

}  // namespace
}  // namespace qlora

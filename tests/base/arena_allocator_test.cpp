#include "base/arena_allocator.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <new>
#include <thread>
#include <vector>

namespace qlora {
namespace {

int64_t live() { return arena_statistics().used_bytes; }

TEST(ArenaAllocator, LargeTensorsComeFromItAndGoBackToIt) {
  use_arena_for_cpu_tensors();
  const int64_t before = live();
  {
    const at::Tensor large = at::empty({1 << 20}, at::kFloat), small = at::empty({16}, at::kFloat);
    EXPECT_EQ(live() - before, 4 << 20);
  }
  EXPECT_EQ(live(), before);
}

TEST(ArenaAllocator, TheSameRequestsTakeTheSameRoomEachTime) {
  use_arena_for_cpu_tensors();
  const auto step = [] {
    std::vector<at::Tensor> kept;
    for (int i = 1; i < 40; ++i) {
      kept.push_back(at::empty({i * 30000}, at::kFloat));
      if (i % 3 == 0) kept.erase(kept.begin() + i / 3);
    }
  };
  step();
  const int64_t extent = arena_statistics().extent_bytes;
  for (int i = 0; i < 5; ++i) step();
  EXPECT_EQ(arena_statistics().extent_bytes, extent);
}

TEST(ArenaAllocator, LiveBuffersNeverOverlap) {
  use_arena_for_cpu_tensors();
  std::vector<at::Tensor> kept;
  for (int i = 0; i < 200; ++i) {
    const int64_t size = 20000 + (i * 7919) % 50000;
    kept.push_back(at::full({size}, i, at::kInt));
    if (kept.size() > 20) kept.erase(kept.begin() + (i * 31) % 20);
  }
  for (const at::Tensor& t : kept)
    EXPECT_TRUE((t == t[0]).all().item<bool>());  // no other tensor wrote into it
}

TEST(ArenaAllocator, ThreadsMayFreeWhatOthersMade) {
  use_arena_for_cpu_tensors();
  const int64_t before = live();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) {
        at::Tensor x = at::full({40000 + i}, 1.0f);
        std::thread([x = std::move(x)]() mutable { x.reset(); }).join();
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(live(), before);
}

TEST(ArenaAllocator, ReleasedPagesLeaveLiveTensorsAlone) {
  use_arena_for_cpu_tensors();
  const at::Tensor kept = at::full({1 << 18}, 3.0f);
  at::empty({1 << 22}, at::kFloat).fill_(1.0f);
  release_free_arena_pages();
  EXPECT_TRUE((kept == 3.0f).all().item<bool>());
}

TEST(ArenaAllocator, ASizeThatNoMachineHasIsRefusedAndNotWrappedAround) {
  use_arena_for_cpu_tensors();
  const int64_t before = live();
  for (const size_t bytes : {size_t{1} << 41, size_t{1} << 60, SIZE_MAX - 5})
    EXPECT_THROW(c10::GetCPUAllocator()->allocate(bytes), std::bad_alloc) << bytes;
  EXPECT_EQ(live(), before);
}

TEST(ArenaAllocatorDeathTest, GivingBackTwiceEndsTheProcessWithASentence) {
  use_arena_for_cpu_tensors();
  const auto twice = [] {
    c10::Allocator* allocator = c10::GetCPUAllocator();
    void* pointer = allocator->raw_allocate(1 << 20);
    allocator->raw_deallocate(pointer);
    allocator->raw_deallocate(pointer);
  };
  EXPECT_DEATH(twice(), "given back twice");
}

}  // namespace
}  // namespace qlora

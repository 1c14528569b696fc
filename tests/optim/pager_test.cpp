#include "optim/pager.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "base/error.h"
#include "tests/support/trained_tensors.h"

namespace qlora::optim {
namespace {

using test::same_bits;
using test::TrainedTensors;

TEST(PagePlan, WhatFitsIsOneResidentWindow) {
  const PagePlan plan = plan_pages({100, 200, 300}, 1000);
  ASSERT_EQ(plan.windows.size(), 1u);
  EXPECT_EQ(plan.windows[0].host_offset, -1);
  EXPECT_EQ(plan.windows[0].last_page, 3);
  EXPECT_EQ(plan.host_bytes, 0);
  EXPECT_EQ(plan.device_bytes, 128 + 256 + 384);
}

TEST(PagePlan, OnlyWhatTheTwoSlotsLeaveIsResident) {
  const PagePlan plan = plan_pages(std::vector<int64_t>(10, 128), 5 * 128);
  ASSERT_EQ(plan.windows.size(),
            8u);  // three pages stay, seven pass through the two slots one by one
  EXPECT_EQ(plan.windows[0].last_page, 3);
  EXPECT_EQ(plan.device_bytes, 5 * 128);
  EXPECT_EQ(plan.host_bytes, 7 * 128);
  for (size_t w = 1; w < 8; ++w) EXPECT_EQ(plan.windows[w].device_offset, (w % 2 ? 3 : 4) * 128);
}

TEST(PagePlan, EveryPageHasOnePlaceAndNeighbouringWindowsNeverOverlap) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> pages(1 + random() % 40);
    for (int64_t& bytes : pages) bytes = 1 + static_cast<int64_t>(random() % 5000);
    const int64_t least = least_arena_bytes(pages),
                  arena = least + static_cast<int64_t>(random() % 40000);
    const PagePlan plan = plan_pages(pages, arena);
    EXPECT_LE(plan.device_bytes, arena);
    int64_t next = 0, host = 0;
    for (size_t w = 0; w < plan.windows.size(); ++w) {
      const PagePlan::Window& window = plan.windows[w];
      EXPECT_EQ(window.first_page, next);
      EXPECT_LT(window.first_page, window.last_page);
      EXPECT_LE(window.device_offset + window.bytes, plan.device_bytes);
      int64_t offset = 0;
      for (int64_t page = window.first_page; page < window.last_page; ++page) {
        EXPECT_EQ(plan.page_windows[static_cast<size_t>(page)], static_cast<int64_t>(w));
        EXPECT_EQ(plan.page_offsets[static_cast<size_t>(page)], offset);
        offset += aligned_page_bytes(pages[static_cast<size_t>(page)]);
      }
      EXPECT_EQ(offset, window.bytes);
      if (window.host_offset >= 0) {
        EXPECT_EQ(window.host_offset, host);
        host += window.bytes;
      }
      // The resident window lies below both slots; of the streamed ones, neighbours are in the
      // arena together.
      if (w > 0) {
        const PagePlan::Window& before = plan.windows[w - 1];
        EXPECT_TRUE(before.device_offset + before.bytes <= window.device_offset ||
                    window.device_offset + window.bytes <= before.device_offset);
      }
      next = window.last_page;
    }
    EXPECT_EQ(next, static_cast<int64_t>(pages.size()));
    EXPECT_EQ(host, plan.host_bytes);
  }
}

TEST(PagePlan, RefusesAnArenaBelowTwoPages) {
  EXPECT_EQ(least_arena_bytes({128, 512, 128, 128, 512}), 1024);
  EXPECT_EQ(least_arena_bytes({128, 128}), 256);
  EXPECT_THROW(plan_pages({128, 512, 128, 128, 512}, 1023), Error);
}

TEST(Pager, APageIsAtItsAddressDuringItsWindowAndSurvivesTheOthers) {
  const std::vector<int64_t> bytes(10, 128);
  Pager pager(plan_pages(bytes, 5 * 128), at::kCPU);
  for (int64_t page = 0; page < 10; ++page) pager.write(page, at::full({128}, page, at::kByte));
  for (int step = 1; step <= 3; ++step)
    pager.for_each_window([&](int64_t index) {
      const PagePlan::Window& window = pager.plan().windows[static_cast<size_t>(index)];
      for (int64_t page = window.first_page; page < window.last_page; ++page) {
        auto* value = static_cast<uint8_t*>(pager.address(page));
        EXPECT_EQ(value[127], page + 10 * (step - 1));
        for (int i = 0; i < 128; ++i) value[i] = static_cast<uint8_t>(value[i] + 10);
      }
    });
  for (int64_t page = 0; page < 10; ++page)
    EXPECT_TRUE(same_bits(pager.read(page, 128), at::full({128}, page + 30, at::kByte))) << page;
  EXPECT_EQ(pager.statistics().evictions, 3 * 7);
  EXPECT_EQ(pager.statistics().bytes_to_device, 3 * 7 * 128);
  EXPECT_EQ(pager.statistics().bytes_to_host, 3 * 7 * 128);
}

class PagedAdamw : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Names, PagedAdamw, testing::Values("paged_adamw", "paged_adamw_8bit"),
                         [](const auto& info) { return std::string(info.param); });

const std::vector<int64_t> kSizes = {5000, 100, 4096, 9216, 700000, 5000, 4095, 20000, 8192};

TEST_P(PagedAdamw, AnArenaOfAnySizeGivesTheBitsOfTheUnpagedOptimizer) {
  OptimizerOptions options;
  options.name = std::string(GetParam()).substr(6);
  options.weight_decay = 0.1;
  TrainedTensors plain(kSizes);
  const auto unpaged = make_optimizer(options, plain.parameters);
  options.name = GetParam();
  const int64_t total = optimizer_state_bytes(options, kSizes, false).device;
  const int64_t page = options.name == "paged_adamw" ? 262144 * 8 : 262144 * 2 + 1024 * 8;
  for (uint32_t step = 1; step <= 4; ++step) {
    plain.draw_gradients(step);
    unpaged->step(1e-2, 0.8);
  }
  EXPECT_EQ(unpaged->paging().evictions, 0);
  for (const int64_t arena : {2 * page, 2 * page + 100000, total - 128, total}) {
    options.paged_resident_bytes = arena;
    TrainedTensors tensors(kSizes);
    const auto paged = make_optimizer(options, tensors.parameters);
    for (uint32_t step = 1; step <= 4; ++step) {
      tensors.draw_gradients(step);
      paged->step(1e-2, 0.8);
    }
    EXPECT_TRUE(same_bits(tensors.values, plain.values)) << arena;
    EXPECT_TRUE(same_bits(paged->state(), unpaged->state())) << arena;
    EXPECT_LE(paged->device_bytes(), arena);
    EXPECT_EQ(paged->host_bytes() > 0, arena < total);
    EXPECT_EQ(paged->paging().bytes_to_device, 4 * paged->host_bytes());
    EXPECT_EQ(paged->paging().bytes_to_host, 4 * paged->host_bytes());
    EXPECT_EQ(paged->paging().evictions > 0, arena < total);
    const StateBytes planned = optimizer_state_bytes(options, kSizes, false);
    EXPECT_EQ(planned.device, paged->device_bytes());
    EXPECT_EQ(planned.host, paged->host_bytes());
  }
}

TEST_P(PagedAdamw, ByDefaultHalfStaysOnAGpuAndAllOnTheCpu) {
  OptimizerOptions options;
  options.name = GetParam();
  const std::vector<int64_t> sizes(100, 50000);
  const StateBytes cpu = optimizer_state_bytes(options, sizes, false);
  const StateBytes gpu = optimizer_state_bytes(options, sizes, true);
  EXPECT_EQ(cpu.host, 0);
  EXPECT_LE(gpu.device, cpu.device / 2);
  EXPECT_GE(gpu.device + gpu.host, cpu.device);
}

TEST_P(PagedAdamw, AnArenaBelowTwoPagesIsRefusedWithTheLeastSize) {
  OptimizerOptions options;
  options.name = GetParam();
  options.paged_resident_bytes = 1000;
  TrainedTensors tensors({5000, 5000, 5000});
  try {
    make_optimizer(options, tensors.parameters);
    FAIL();
  } catch (const ConfigError& error) {
    const int64_t page = options.name == "paged_adamw" ? 40000 : 5000 + 8 + 5000 + 8 + 80 + 80;
    EXPECT_THAT(error.what(),
                testing::StartsWith("optim.paged_resident_bytes must be 0 or at least " +
                                    std::to_string(2 * aligned_page_bytes(page))));
  }
}

}  // namespace
}  // namespace qlora::optim

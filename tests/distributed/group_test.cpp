#include "distributed/group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstring>

#include "base/profile.h"
#include "base/stop.h"
#include "base/stopwatch.h"
#include "tests/support/ranks.h"

namespace qlora::distributed {
namespace {

using test::run_ranks;

// What rank `rank` brings: numbers whose sum depends on the order of additions.
at::Tensor numbers_of(int rank, int64_t count, at::ScalarType dtype) {
  at::Tensor numbers = at::empty({count}, at::kDouble);
  auto* values = numbers.mutable_data_ptr<double>();
  for (int64_t i = 0; i < count; ++i)
    values[i] = (rank % 2 == 0 ? 1e7 : -1e7) + 1.0 / static_cast<double>(3 + i + 7 * rank);
  return numbers.to(dtype);
}

at::Tensor tree(std::vector<at::Tensor> numbers) {
  while (numbers.size() > 1) {
    std::vector<at::Tensor> pairs;
    for (size_t i = 0; i < numbers.size(); i += 2)
      pairs.push_back(i + 1 < numbers.size() ? numbers[i] + numbers[i + 1] : numbers[i]);
    numbers = pairs;
  }
  return numbers.front();
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.nbytes() == b.nbytes() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

class GroupOf : public testing::TestWithParam<int> {};

TEST_P(GroupOf, AddsInPairsWhateverTheLength) {
  const int size = GetParam();
  const auto codes = run_ranks(size, [size](Group& group) {
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble})
      for (const int64_t count : {0, 1, 2, 7, 1000, 4099}) {
        std::vector<at::Tensor> all;
        for (int rank = 0; rank < size; ++rank) all.push_back(numbers_of(rank, count, dtype));
        const at::Tensor own = all[static_cast<size_t>(group.rank())].clone();
        group.sum(own);
        EXPECT_TRUE(same_bits(own, tree(all))) << count << " numbers on rank " << group.rank();
      }
  });
  EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0));
}

TEST_P(GroupOf, HandsOnTensorsAndTexts) {
  const int size = GetParam();
  const auto codes = run_ranks(size, [size](Group& group) {
    const int last = size - 1;
    at::Tensor tensor = at::full({3, 5}, group.rank(), at::kBFloat16);
    group.broadcast(tensor, last);
    EXPECT_TRUE((tensor == last).all().item<bool>());
    EXPECT_EQ(group.broadcast(group.leads() ? "of rank 0" : ""), "of rank 0");
    EXPECT_EQ(group.broadcast(std::string(), last), "");
    group.require_same("the number of ranks", std::to_string(size));
  });
  EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0));
}

// Bytes of any type, a function of the rank and of where they lie.
at::Tensor shard_of(int rank, int64_t count) {
  return (at::arange(count, at::kLong) * 7 + rank * 31).remainder(251).to(at::kByte);
}

at::Tensor shards_of(int size, int64_t count) {
  std::vector<at::Tensor> all;
  for (int rank = 0; rank < size; ++rank) all.push_back(shard_of(rank, count));
  return at::cat(all);
}

TEST_P(GroupOf, GathersBytesInTheOrderOfTheRanks) {
  const int size = GetParam();
  const auto codes = run_ranks(size, [size](Group& group) {
    for (const int64_t count : {0, 1, 3, 1000, 4099}) {
      const at::Tensor whole = at::zeros({size * count}, at::kByte);
      group.gather(shard_of(group.rank(), count), whole).wait();
      EXPECT_TRUE(same_bits(whole, shards_of(size, count))) << count;
    }
    // Whatever the type.
    const at::Tensor halves = at::full({4, 3}, group.rank() + 0.5, at::kBFloat16);
    const at::Tensor whole = at::zeros({size, 4, 3}, at::kBFloat16);
    Transfer transfer = group.gather(halves, whole);
    transfer.wait();
    transfer.wait();
    for (int rank = 0; rank < size; ++rank)
      EXPECT_TRUE((whole[rank] == rank + 0.5).all().item<bool>()) << rank;
    EXPECT_THROW(group.gather(halves, at::zeros({size + 1, 4, 3}, at::kBFloat16)), Error);
  });
  EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0));
}

TEST_P(GroupOf, OtherCallsComeBetweenAGatherAndItsArrival) {
  const int size = GetParam();
  const auto codes = run_ranks(size, [size](Group& group) {
    for (int round = 0; round < 20; ++round) {
      const int64_t count = 50'000 + round;
      const at::Tensor first = at::zeros({size * count}, at::kByte), second = at::zeros_like(first);
      Transfer one = group.gather(shard_of(group.rank(), count), first);
      const at::Tensor numbers = at::ones({1000});
      group.sum(numbers);
      Transfer two = group.gather(shard_of(group.rank(), count), second);
      EXPECT_EQ(group.any(group.rank() == size - 1), true);
      EXPECT_EQ(group.any(false), false);
      two.wait();
      one.wait();
      EXPECT_TRUE((numbers == size).all().item<bool>());
      EXPECT_TRUE(same_bits(first, shards_of(size, count)));
      EXPECT_TRUE(same_bits(second, first));
    }
  });
  EXPECT_EQ(codes, std::vector<int>(static_cast<size_t>(size), 0));
}

INSTANTIATE_TEST_SUITE_P(Ranks, GroupOf, testing::Values(1, 2, 3, 4));

TEST(Group, TheRankThatDiffersIsNamedOnAllRanks) {
  const auto codes = run_ranks(3, [](Group& group) {
    try {
      group.require_same("the base model", group.rank() == 1 ? "5f0a" : "77b1");
      ADD_FAILURE() << "rank " << group.rank() << " saw no difference";
    } catch (const ConfigError& error) {
      EXPECT_NE(std::string(error.what()).find("the base model: rank 1 has 5f0a, rank 0 has 77b1"),
                std::string::npos)
          << error.what();
    }
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

TEST(Group, ARankThatIsKilledIsNoticedAtOnce) {
  const auto codes = run_ranks(2, [](Group& group) {
    if (group.rank() == 1) kill(getpid(), SIGKILL);
    const Stopwatch watch;
    const at::Tensor numbers = at::ones({5});
    EXPECT_THROW(group.sum(numbers), LostRank);
    EXPECT_LT(watch.seconds(), 30);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(Group, WritingToARankThatIsGoneDoesNotEndTheProcess) {
  const auto codes = run_ranks(2, [](Group& group) {
    struct sigaction now {};
    sigaction(SIGPIPE, nullptr, &now);
    EXPECT_EQ(now.sa_handler, SIG_IGN);
    if (group.rank() == 1) kill(getpid(), SIGKILL);
    const at::Tensor numbers = at::ones({1'000'000});
    EXPECT_THROW(while (true) group.broadcast(numbers), LostRank);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(Group, AGatherFromARankThatIsKilledSaysSoWhenItIsWaitedFor) {
  const auto codes = run_ranks(2, [](Group& group) {
    if (group.rank() == 1) kill(getpid(), SIGKILL);
    const Stopwatch watch;
    const at::Tensor whole = at::empty({2'000'000}, at::kByte);
    EXPECT_THROW(group.gather(at::ones({1'000'000}, at::kByte), whole).wait(), LostRank);
    EXPECT_LT(watch.seconds(), 30);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 128 + SIGKILL}));
}

TEST(Group, ASilentRankIsGivenUpAfterThePatience) {
  const auto codes = run_ranks(
      2,
      [](Group& group) {
        if (group.rank() == 1) {
          sleep(20);
          _exit(0);
        }
        const Stopwatch watch;
        const at::Tensor numbers = at::ones({5});
        EXPECT_THROW(group.sum(numbers), LostRank);
        EXPECT_GT(watch.seconds(), 4.5);
        EXPECT_LT(watch.seconds(), 20);
        _exit(testing::Test::HasFailure() ? 1 : 0);
      },
      std::chrono::seconds(5));
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(Group, SumsOfOtherSizesAndTypesInBetweenLeaveTheNextOneAsItIs) {
  const auto codes = run_ranks(3, [](Group& group) {
    for (const int64_t count : {1000, 7, 500, 1, 1000})
      for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
        const at::Tensor own = numbers_of(group.rank(), count, dtype);
        group.sum(own);
        EXPECT_TRUE(same_bits(own, tree({numbers_of(0, count, dtype), numbers_of(1, count, dtype),
                                         numbers_of(2, count, dtype)})))
            << count;
      }
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

TEST(Group, SumsOfMoreNumbersThanAreAddedAtOnceAreTheSame) {
  const auto codes = run_ranks(2, [](Group& group) {
    const int64_t count = Group::kNumbersAtOnce + 5;
    const auto numbers = [count](int rank) {
      return (at::arange(count, at::kFloat).remainder_(1009) + 1.0F / static_cast<float>(3 + rank))
          .mul_(rank == 1 ? -1e3 : 1e3);
    };
    const at::Tensor own = numbers(group.rank());
    group.sum(own);
    EXPECT_TRUE(same_bits(own, tree({numbers(0), numbers(1)})));
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(Group, SumsAreAStageOfTheProfileInWhichWaitingCounts) {
  const auto codes = run_ranks(2, [](Group& group) {
    if (group.rank() == 1) sleep(2);  // the other may begin later than this one by its processor
    start_profile();
    const at::Tensor numbers = at::ones({5});
    group.sum(numbers);
    stop_profile();
    const auto stages = stage_times();
    EXPECT_EQ(stages.size(), 1u);
    EXPECT_EQ(stages.front().stage, kCommunication);
    EXPECT_TRUE(!group.leads() || stages.front().seconds > 0.2);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(Group, WaitingForWhatIsGatheredIsTheSameStage) {
  const auto codes = run_ranks(2, [](Group& group) {
    if (group.rank() == 1) sleep(2);  // the other may begin later than this one by its processor
    const at::Tensor whole = at::zeros({2000}, at::kByte);
    start_profile();
    group.gather(shard_of(group.rank(), 1000), whole).wait();
    stop_profile();
    const auto stages = stage_times();
    EXPECT_EQ(stages.size(), 1u);
    EXPECT_EQ(stages.front().stage, kCommunication);
    EXPECT_TRUE(!group.leads() || stages.front().seconds > 0.2);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

// The rank `fails` leaves by an error; what the others then throw.
void expect_that_all_hear_of(int fails) {
  const auto codes = run_ranks(3, [fails](Group& group) {
    const Stopwatch watch;
    const at::Tensor numbers = at::ones({5});
    group.sum(numbers);
    if (group.rank() == fails) {
      group.fail_together("the disk is full");
    } else {
      try {
        group.sum(numbers);
        ADD_FAILURE() << "rank " << group.rank() << " heard nothing";
      } catch (const LostRank& error) {
        EXPECT_EQ(error.what(), fmt::format("rank {} failed: the disk is full", fails));
      }
    }
    EXPECT_LT(watch.seconds(), 4);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
}

TEST(Group, WhatARankFailedOfIsToldOnTheOthers) {
  expect_that_all_hear_of(0);
  expect_that_all_hear_of(2);
}

TEST(Group, TheFirstRankWaitsOnlyForSecondsForThoseThatDoNotListen) {
  const auto codes = run_ranks(2, [](Group& group) {
    if (!group.leads()) {
      sleep(9);
      _exit(0);
    }
    const Stopwatch watch;
    group.fail_together("the disk is full");
    EXPECT_LT(watch.seconds(), 8);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  });
  EXPECT_EQ(codes, (std::vector<int>{0, 0}));
}

TEST(Group, ARankThatNobodyJoinsSaysWhereItWaited) {
  const int port = test::free_port();
  try {
    Group group({1, 2, 1, 2, "127.0.0.1", port}, std::chrono::seconds(1));
    FAIL() << "met nobody";
  } catch (const LostRank& error) {
    EXPECT_NE(std::string(error.what()).find(fmt::format("127.0.0.1:{}", port)), std::string::npos)
        << error.what();
  }
}

TEST(Group, WhereOneRankIsStoppedTheOthersAreToo) {
  for (const int stops : {0, 2}) {
    const auto codes = run_ranks(3, [stops](Group& group) {
      if (group.rank() == stops) {
        group.stop_together("tokenizing rows");
        group.stop_together("tokenizing rows");  // says nothing more
      } else {
        try {
          group.meet();
          ADD_FAILURE() << "rank " << group.rank() << " heard nothing";
        } catch (const Stopped& stopped) {
          EXPECT_EQ(stopped.phase, fmt::format("with rank {}: tokenizing rows", stops));
        }
      }
      _exit(testing::Test::HasFailure() ? 1 : 0);
    });
    EXPECT_EQ(codes, (std::vector<int>{0, 0, 0}));
  }
}

TEST(Group, ARankThatWaitsForTheOthersStopsWhereItIsToStop) {
  const std::atomic<bool> stop = true;
  const ObeyStop obey(stop);
  for (const int rank : {0, 1}) {
    const Stopwatch watch;
    try {
      Group group({rank, 2, rank, 2, "127.0.0.1", test::free_port()}, std::chrono::minutes(5));
      FAIL() << "met nobody";
    } catch (const Stopped& stopped) {
      EXPECT_EQ(stopped.phase, "waiting for the other ranks");
    }
    EXPECT_LT(watch.seconds(), 30) << rank;  // 1 s or two, where the machine is not busy
  }
}

TEST(Group, OneRankIsConnectedToNothing) {
  Group group;
  const at::Tensor numbers = at::ones({3});
  group.sum(numbers);
  EXPECT_TRUE((numbers == 1).all().item<bool>());
  EXPECT_EQ(group.broadcast("text"), "text");
  EXPECT_TRUE(group.leads());
}

}  // namespace
}  // namespace qlora::distributed

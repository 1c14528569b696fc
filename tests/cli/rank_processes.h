// One run as several processes, each told by its environment which rank it is, as launchers do.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/cli/program.h"
#include "tests/support/ranks.h"

namespace qlora::test {

using Arguments = std::vector<std::string>;

class RankProcesses {
 public:
  // Starts `qlora of_ranks[r]` as rank r, in the folder "rank<r>" of `dir`, which it makes.
  RankProcesses(const TempDir& dir, const std::vector<Arguments>& of_ranks) {
    const std::string size = std::to_string(of_ranks.size());
    const std::string port = std::to_string(free_port());
    for (size_t i = 0; i < of_ranks.size(); ++i) {
      const std::string rank = std::to_string(i), folder = dir / ("rank" + rank);
      std::filesystem::create_directories(folder);
      ranks_.push_back(std::make_unique<ChildProcess>(
          QLORA_PROGRAM, of_ranks[i], folder, std::nullopt,
          Arguments{"RANK=" + rank, "WORLD_SIZE=" + size, "LOCAL_RANK=" + rank,
                    "LOCAL_WORLD_SIZE=" + size, "MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + port}));
    }
  }
  RankProcesses(const TempDir& dir, int size, const Arguments& arguments)
      : RankProcesses(dir, std::vector<Arguments>(static_cast<size_t>(size), arguments)) {}

  ChildProcess& rank(int index) { return *ranks_.at(static_cast<size_t>(index)); }
  // Of all ranks, in their order, once they have ended.
  std::vector<Finished> wait() {
    std::vector<Finished> all;
    for (const auto& rank : ranks_) all.push_back(rank->wait());
    return all;
  }

 private:
  std::vector<std::unique_ptr<ChildProcess>> ranks_;
};

inline std::vector<Finished> run_ranks_of(const TempDir& dir, int size,
                                          const Arguments& arguments) {
  return RankProcesses(dir, size, arguments).wait();
}

// Every rank ended with this exit code.
inline void expect_exit_codes(const std::vector<Finished>& ranks, int code) {
  for (size_t i = 0; i < ranks.size(); ++i)
    EXPECT_EQ(ranks[i].exit_code, code)
        << "rank " << i << ", signal " << ranks[i].signal << ": " << ranks[i].err;
}

// The lines of metrics.jsonl without what differs from one process to the next.
inline std::vector<std::string> metrics_without_times(const std::string& run) {
  std::vector<std::string> lines;
  std::ifstream file(run + "/metrics.jsonl");
  for (std::string line; std::getline(file, line);) {
    auto metrics = nlohmann::json::parse(line);
    for (const char* key :
         {"step_seconds", "tokens_per_second", "eval_seconds", "peak_memory_bytes"})
      metrics.erase(key);
    lines.push_back(metrics.dump());
  }
  return lines;
}

// The path of the run's newest checkpoint.
inline std::string last_checkpoint(const std::string& run) {
  std::string last;
  for (const auto& entry : std::filesystem::directory_iterator(run))
    if (entry.path().filename().string().starts_with("checkpoint-"))
      last = std::max(last, entry.path().string());
  return last;
}

// Two finished runs of the same recipe: adapter, state of the optimizer, losses and norms of all
// steps are the same, bit for bit.
inline void expect_same_training(const std::string& run, const std::string& other) {
  const std::string adapter = "/adapter/adapter_model.safetensors";
  ASSERT_TRUE(std::filesystem::exists(run + adapter)) << run;
  EXPECT_TRUE(read_file(run + adapter) == read_file(other + adapter)) << other << ": the adapter";
  const std::string state = last_checkpoint(run) + "/optimizer.safetensors";
  ASSERT_TRUE(std::filesystem::exists(state)) << state;
  EXPECT_TRUE(read_file(state) == read_file(last_checkpoint(other) + "/optimizer.safetensors"))
      << other << ": the optimizer's state";
  EXPECT_EQ(metrics_without_times(run), metrics_without_times(other)) << other;
}

}  // namespace qlora::test

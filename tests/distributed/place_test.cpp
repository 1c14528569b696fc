#include "distributed/place.h"

#include <gtest/gtest.h>

#include <map>

#include "base/error.h"
#include "distributed/host_list.h"

namespace qlora::distributed {
namespace {

using Variables = std::map<std::string, std::string>;

Place of(const Variables& variables) {
  return place_from([&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Variables with(Variables variables, const Variables& others) {
  for (const auto& [name, value] : others) variables[name] = value;
  return variables;
}

std::string refusal(const Variables& variables) {
  try {
    of(variables);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

bool names(const std::string& text, const std::string& what) {
  return text.find(what) != std::string::npos;
}

const Variables kTorchrun = {{"TORCHELASTIC_RUN_ID", "none"},
                             {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                             {"TORCHELASTIC_RESTART_COUNT", "0"},
                             {"RANK", "3"},
                             {"WORLD_SIZE", "4"},
                             {"LOCAL_RANK", "1"},
                             {"LOCAL_WORLD_SIZE", "2"},
                             {"MASTER_ADDR", "node7"},
                             {"MASTER_PORT", "41000"}};
const Variables kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},
                            {"OMPI_COMM_WORLD_SIZE", "2"},
                            {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                            {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
// srun -N2 -n4
const Variables kSlurm = {{"SLURM_STEP_NUM_TASKS", "4"},
                          {"SLURM_PROCID", "3"},
                          {"SLURM_LOCALID", "1"},
                          {"SLURM_NODEID", "1"},
                          {"SLURM_STEP_TASKS_PER_NODE", "2(x2)"},
                          {"SLURM_STEP_NODELIST", "gpu[003-017]"}};

TEST(Place, IsOneRankWithoutALauncher) { EXPECT_EQ(of({}), Place{}); }

TEST(Place, IsReadFromTorchrun) {
  EXPECT_EQ(of(kTorchrun), (Place{3, 4, 1, 2, "node7", 41000, true, 0}));
  EXPECT_EQ(of(with(kTorchrun, {{"TORCHELASTIC_RESTART_COUNT", "2"}})).attempt, 2);
  EXPECT_FALSE(of(with(kTorchrun, {{"TORCHELASTIC_USE_AGENT_STORE", "False"}})).store_is_launchers);
}

TEST(Place, IsReadFromOpenMpi) {
  EXPECT_EQ(of(kOpenMpi), (Place{1, 2, 1, 2, "127.0.0.1", 29500, false, 0}));
}

TEST(Place, IsReadFromMpichWhereItSaysWhatIsLocal) {
  const Variables mpich = {{"PMI_RANK", "5"},
                           {"PMI_SIZE", "8"},
                           {"MPI_LOCALRANKID", "1"},
                           {"MPI_LOCALNRANKS", "4"},
                           {"MASTER_ADDR", "10.0.0.1"}};
  EXPECT_EQ(of(mpich), (Place{5, 8, 1, 4, "10.0.0.1", 29500, false, 0}));
}

TEST(Place, IsReadFromSrunAndMeetsOnTheFirstHost) {
  EXPECT_EQ(of(kSlurm), (Place{3, 4, 1, 2, "gpu003", 29500, false, 0}));
  EXPECT_EQ(of(with(kSlurm, {{"MASTER_ADDR", "10.1.1.1"}})).address, "10.1.1.1");
  const Variables uneven =
      with(kSlurm, {{"SLURM_STEP_TASKS_PER_NODE", "3,1"}, {"SLURM_LOCALID", "0"}});
  EXPECT_EQ(of(uneven).local_size, 1);
}

TEST(Place, ABatchScriptWithoutSrunIsOneRank) {
  EXPECT_EQ(of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "0"}}), Place{});
}

TEST(Place, TheLauncherThatStartedLastCounts) {
  EXPECT_EQ(of(with(kSlurm, kTorchrun)).port, 41000);
  EXPECT_EQ(of(with(with(kSlurm, {{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}), kOpenMpi)).size, 2);
}

TEST(Place, ByHandOneMachineNeedsNoLocalRank) {
  EXPECT_EQ(of({{"RANK", "1"}, {"WORLD_SIZE", "2"}}), (Place{1, 2, 1, 2, "127.0.0.1", 29500}));
}

TEST(Place, SeveralMachinesMustBeToldWhereToMeet) {
  const Variables two_machines = with(kOpenMpi, {{"OMPI_COMM_WORLD_SIZE", "4"}});
  EXPECT_TRUE(names(refusal(two_machines), "MASTER_ADDR is not set")) << refusal(two_machines);
  EXPECT_TRUE(names(refusal(with(two_machines, {{"MASTER_ADDR", "127.0.0.1"}})),
                    "which the others do not reach"));
  EXPECT_EQ(refusal(with(two_machines, {{"MASTER_ADDR", "10.0.0.1"}})), "");
}

TEST(Place, ContradictionsAndGapsAreRefusedByName) {
  EXPECT_TRUE(names(refusal({{"RANK", "1"}}), "WORLD_SIZE is not set"));
  EXPECT_TRUE(names(refusal({{"RANK", "x"}, {"WORLD_SIZE", "2"}}), "RANK is 'x'"));
  EXPECT_TRUE(names(refusal({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), "rank 2 of 2"));
  EXPECT_TRUE(
      names(refusal(with(kTorchrun, {{"LOCAL_RANK", "2"}})), "rank 2 of 2 on this machine"));
  EXPECT_TRUE(names(refusal(with(kTorchrun, {{"MASTER_PORT", "70000"}})), "MASTER_PORT"));
}

TEST(HostList, GivesTheFirstHost) {
  EXPECT_EQ(first_host("node1"), "node1");
  EXPECT_EQ(first_host("node1,node2"), "node1");
  EXPECT_EQ(first_host("gpu[003-017,020],login1"), "gpu003");
  EXPECT_EQ(first_host("gpu[7,9]"), "gpu7");
  EXPECT_EQ(first_host("rack[1-2]-a,b"), "rack1-a");
  for (const char* wrong : {"", "gpu[", "gpu[]", "gpu[1-2"})
    EXPECT_THROW(first_host(wrong), ConfigError) << wrong;
}

TEST(HostList, GivesTheTasksOfEachNode) {
  EXPECT_EQ(tasks_of_nodes("2(x3),1"), (std::vector<int>{2, 2, 2, 1}));
  EXPECT_EQ(tasks_of_nodes("4"), (std::vector<int>{4}));
  for (const char* wrong : {"", "2(x", "2(x3", "x", "2,", "2;3", "0"})
    EXPECT_THROW(tasks_of_nodes(wrong), ConfigError) << wrong;
}

}  // namespace
}  // namespace qlora::distributed

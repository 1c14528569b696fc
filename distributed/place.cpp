#include "distributed/place.h"

#include <charconv>
#include <cstdlib>

#include "base/error.h"
#include "distributed/host_list.h"

namespace qlora::distributed {
namespace {

constexpr int kMostRanks = 65536, kMostPorts = 65535;

// The variables, read as what they must be.
class Variables {
 public:
  explicit Variables(const Environment& environment) : environment_(environment) {}

  bool has(const char* name) const { return environment_(name).has_value(); }
  std::optional<std::string> text(const char* name) const { return environment_(name); }

  int number(const char* name, int least, int most) const {
    const std::optional<std::string> value = environment_(name);
    if (!value)
      fail<ConfigError>(
          "{} is not set, but other variables of a launcher are; start the run with torchrun, "
          "mpirun or srun, or unset them",
          name);
    int number = 0;
    const char* end = value->data() + value->size();
    const auto [stop, error] = std::from_chars(value->data(), end, number);
    if (error != std::errc() || stop != end || number < least || number > most)
      fail<ConfigError>("{} is '{}', not a number from {} to {}", name, *value, least, most);
    return number;
  }
  int number_or(const char* name, int least, int most, int otherwise) const {
    return has(name) ? number(name, least, most) : otherwise;
  }

 private:
  const Environment& environment_;
};

struct Names {
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

Place numbered(const Variables& variables, const Names& names) {
  Place place;
  place.size = variables.number(names.size, 1, kMostRanks);
  place.rank = variables.number(names.rank, 0, kMostRanks - 1);
  place.local_rank = variables.number(names.local_rank, 0, kMostRanks - 1);
  place.local_size = variables.number(names.local_size, 1, kMostRanks);
  return place;
}

Place from_torchrun(const Variables& variables) {
  Place place = numbered(variables, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  const auto agents = variables.text("TORCHELASTIC_USE_AGENT_STORE");
  place.store_is_launchers = agents == "True" || agents == "true" || agents == "1";
  place.attempt = variables.number_or("TORCHELASTIC_RESTART_COUNT", 0, kMostRanks, 0);
  return place;
}

Place from_slurm(const Variables& variables) {
  Place place;
  place.size = variables.number("SLURM_STEP_NUM_TASKS", 1, kMostRanks);
  place.rank = variables.number("SLURM_PROCID", 0, kMostRanks - 1);
  place.local_rank = variables.number("SLURM_LOCALID", 0, kMostRanks - 1);
  place.local_size = place.size;
  if (const auto tasks = variables.text("SLURM_STEP_TASKS_PER_NODE")) {
    const std::vector<int> of_nodes = tasks_of_nodes(*tasks);
    const int most = static_cast<int>(of_nodes.size()) - 1;
    place.local_size =
        of_nodes.at(static_cast<size_t>(variables.number_or("SLURM_NODEID", 0, most, 0)));
  }
  if (const auto nodes = variables.text("SLURM_STEP_NODELIST"); nodes && place.size > 1)
    place.address = first_host(*nodes);
  return place;
}

// Whoever sets RANK by hand may leave out what one machine does not need.
Place by_hand(const Variables& variables) {
  Place place;
  place.size = variables.number("WORLD_SIZE", 1, kMostRanks);
  place.rank = variables.number("RANK", 0, kMostRanks - 1);
  const bool local = variables.has("LOCAL_RANK") || variables.has("LOCAL_WORLD_SIZE");
  place.local_rank = local ? variables.number("LOCAL_RANK", 0, kMostRanks - 1) : place.rank;
  place.local_size = local ? variables.number("LOCAL_WORLD_SIZE", 1, kMostRanks) : place.size;
  return place;
}

Place started_by(const Variables& variables) {
  if (variables.has("TORCHELASTIC_RUN_ID")) return from_torchrun(variables);
  if (variables.has("OMPI_COMM_WORLD_RANK"))
    return numbered(variables, {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"});
  if (variables.has("MPI_LOCALRANKID"))
    return numbered(variables, {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
  // A batch script has SLURM_PROCID too, for its one process; srun adds those of a step.
  if (variables.has("SLURM_STEP_NUM_TASKS")) return from_slurm(variables);
  if (variables.has("RANK") || variables.has("WORLD_SIZE")) return by_hand(variables);
  return {};
}

}  // namespace

Place place_from(const Environment& environment) {
  const Variables variables(environment);
  Place place = started_by(variables);
  if (place.rank >= place.size)
    fail<ConfigError>("the launcher's variables say rank {} of {} ranks", place.rank, place.size);
  if (place.local_rank >= place.local_size || place.local_size > place.size)
    fail<ConfigError>(
        "the launcher's variables say rank {} of {} on this machine, of {} ranks in all",
        place.local_rank, place.local_size, place.size);
  if (place.size == 1) return place;
  const bool told = variables.has("MASTER_ADDR");
  if (told) place.address = *variables.text("MASTER_ADDR");
  place.port = variables.number_or("MASTER_PORT", 1, kMostPorts, place.port);
  if (place.local_size < place.size && place.address == Place{}.address)
    fail<ConfigError>(
        "{} of {} ranks are on this machine, and {}; set MASTER_ADDR to the address of the machine "
        "of rank 0 as the others reach it (mpirun -x MASTER_ADDR=...)",
        place.local_size, place.size,
        told ? "MASTER_ADDR is 127.0.0.1, which the others do not reach"
             : "MASTER_ADDR is not set");
  return place;
}

Place place_from_environment() {
  return place_from([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

}  // namespace qlora::distributed

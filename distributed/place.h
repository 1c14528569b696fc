// Which process this is among those that a launcher (torchrun, mpirun, srun) started for one run,
// and where they meet. Launchers say it in the environment; docs/distributed.md has the commands.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace qlora::distributed {

struct Place {
  int rank = 0, size = 1;              // among all
  int local_rank = 0, local_size = 1;  // among those on this machine
  std::string address = "127.0.0.1";   // of the store where the ranks meet
  int port = 29500;
  bool store_is_launchers = false;  // torchrun's agent serves it; else rank 0 does
  int attempt = 0;                  // of torchrun --max-restarts: how often it has started anew
  bool operator==(const Place&) const = default;
};

// A variable of the environment by its name.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;

// The first of these that set their variables: torchrun, Open MPI's mpirun, MPICH's and Intel MPI's
// mpiexec, Slurm's srun, RANK and WORLD_SIZE set by hand; else one rank. ConfigError if variables
// are missing, are no numbers or contradict each other, or ranks on several machines are not told
// where they meet (MASTER_ADDR).
Place place_from(const Environment& environment);
Place place_from_environment();

}  // namespace qlora::distributed

// Slurm's short forms of lists.
#pragma once

#include <string>
#include <vector>

namespace qlora::distributed {

// The first of "gpu[003-017,020],login1": "gpu003". ConfigError if it cannot be read.
std::string first_host(const std::string& list);
// "2(x3),1": 2, 2, 2, 1 tasks. ConfigError if it cannot be read.
std::vector<int> tasks_of_nodes(const std::string& list);

}  // namespace qlora::distributed

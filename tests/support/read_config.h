// What reading a config.json says.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace qlora::test {

// The warnings, and the refusal if there is one.
std::string said_of(const nlohmann::json& config);
// The same of a config that leaves out sizes, without the warning of that.
std::string said_beside_sizes(const nlohmann::json& config);

}  // namespace qlora::test

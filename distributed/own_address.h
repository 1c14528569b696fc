// Under which address other machines reach this one.
#pragma once

#include <string>

namespace qlora::distributed {

// That of the interface through which `host` is reached: numeric, "10.0.0.2". What a machine's own
// name stands for is of no use: Debian puts it at 127.0.1.1. ConfigError if the host is not known.
std::string address_facing(const std::string& host, int port);

}  // namespace qlora::distributed

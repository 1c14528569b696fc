#include "tests/support/read_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "io/json.h"
#include "model/families/family.h"

namespace qlora::test {

std::string said_of(const nlohmann::json& config) {
  static int count = 0;  // a warning is said once a file
  const io::JsonNode node(config, fmt::format("{}.config.json", ++count));
  testing::internal::CaptureStderr();
  std::string refusal;
  try {
    model::read_architecture(node);
  } catch (const FormatError& error) {
    refusal = error.what();
  }
  return testing::internal::GetCapturedStderr() + refusal;
}

std::string said_beside_sizes(const nlohmann::json& config) {
  std::istringstream all(said_of(config));
  std::string line, others;
  while (std::getline(all, line))
    if (line.find("does not say all sizes") == std::string::npos) others += line + "\n";
  return others;
}

}  // namespace qlora::test

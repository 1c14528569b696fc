#include "tests/support/read_config.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

}  // namespace qlora::test

// qlora doctor --families: what can be trained, and by which names its files are known.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "model/families/family.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

// The lines behind the header, by their first words.
std::map<std::string, std::string> lines_of(const std::string& text) {
  std::map<std::string, std::string> lines;
  std::istringstream stream(text);
  std::string line;
  std::getline(stream, line);
  while (std::getline(stream, line)) lines[line.substr(0, line.find(' '))] = line;
  return lines;
}

TEST(Doctor, EveryFamilyIsListedWithTheNamesInItsFiles) {
  TempDir dir;
  const Finished done = run_qlora(dir, {"doctor", "--families"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto lines = lines_of(done.out);
  EXPECT_EQ(lines.size(), model::families().size());
  for (const model::Family& family : model::families()) {
    ASSERT_TRUE(lines.contains(family.name)) << family.name;
    const std::string& line = lines.at(family.name);
    EXPECT_THAT(line, HasSubstr(fmt::format(" {} ", fmt::join(family.model_types, ", "))));
    if (!family.gguf_architectures.empty())
      EXPECT_THAT(line, EndsWith(fmt::format(" {}", fmt::join(family.gguf_architectures, ", "))));
    else if (!family.gguf_written_as.empty())
      EXPECT_THAT(line, EndsWith(" " + family.gguf_written_as));
    else
      EXPECT_THAT(line, EndsWith(" none"));
  }
}

TEST(Doctor, FamiliesWhoseGgufFilesAreAnothersAreListedWithThatOne) {
  TempDir dir;
  const Finished done = run_qlora(dir, {"doctor", "--families", "--json"});
  ASSERT_EQ(done.exit_code, 0) << done.err;
  const auto listed = nlohmann::json::parse(done.out);
  EXPECT_EQ(listed.size(), model::families().size());
  for (const auto& [name, architecture] : {std::pair{"mistral", "llama"},
                                           {"ministral", "llama"},
                                           {"mixtral", "llama"},
                                           {"olmo3", "olmo2"},
                                           {"mt5", "t5"}})
    EXPECT_EQ(listed.at(name).at("gguf"), nlohmann::json::array({architecture})) << name;
  EXPECT_EQ(listed.at("llama").at("gguf"), nlohmann::json::array({"llama"}));
  EXPECT_EQ(listed.at("gptj").at("gguf"), nlohmann::json::array());
  for (const model::Family& family : model::families())
    EXPECT_EQ(listed.at(family.name).at("model_type"), nlohmann::json(family.model_types));
}

}  // namespace
}  // namespace qlora::test

#include "base/short_waits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

#include "tests/cli/program.h"

namespace qlora::test {
namespace {
using testing::HasSubstr;
using testing::Not;

// What libgomp says about its settings when `qlora --version` runs in this environment.
Finished settings_with(const std::map<std::string, std::string>& environment) {
  for (const char* name : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}) unsetenv(name);
  for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
  setenv("OMP_DISPLAY_ENV", "verbose", 1);
  const TempDir dir;
  Finished done = run_qlora(dir, {"--version"});
  unsetenv("OMP_DISPLAY_ENV");
  for (const auto& [name, value] : environment) unsetenv(name.c_str());
  EXPECT_EQ(done.exit_code, 0) << done.err;
  return done;
}

std::string spins(const std::string& count) { return "GOMP_SPINCOUNT = '" + count + "'"; }
std::string own_spin_count() {
  const std::string setting = kShortWaits;
  return setting.substr(setting.find('=') + 1);
}

TEST(ShortWaits, OpenMpHasReadTheProgramsOwnSpinCount) {
  const Finished done = settings_with({});
  EXPECT_THAT(done.err, HasSubstr(spins(own_spin_count())));
  EXPECT_THAT(done.out, Not(HasSubstr("error"))) << "arguments survive the restart";
}

TEST(ShortWaits, TheUsersSpinCountStands) {
  EXPECT_THAT(settings_with({{"GOMP_SPINCOUNT", "12345"}}).err, HasSubstr(spins("12345")));
}

TEST(ShortWaits, TheUsersWaitPolicyStands) {
  const Finished done = settings_with({{"OMP_WAIT_POLICY", "active"}});
  EXPECT_THAT(done.err, HasSubstr("OMP_WAIT_POLICY = 'ACTIVE'"));
  EXPECT_THAT(done.err, Not(HasSubstr(spins(own_spin_count()))));
}

}  // namespace
}  // namespace qlora::test

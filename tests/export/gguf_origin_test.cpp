#include "export/gguf_origin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace qlora::exporting {
namespace {
using testing::ElementsAre;
using testing::Pair;

io::GgufValue text(const char* value) { return std::string(value); }

TEST(GgufOrigin, AHubIdNamesTheParentModelAndWhereItIs) {
  EXPECT_THAT(
      gguf_origin("org/name"),
      ElementsAre(Pair("general.name", text("name")), Pair("general.base_model.count", uint64_t{1}),
                  Pair("general.base_model.0.name", text("name")),
                  Pair("general.base_model.0.organization", text("org")),
                  Pair("general.base_model.0.repo_url", text("https://huggingface.co/org/name"))));
}

TEST(GgufOrigin, ARevisionIsTheParentsVersionAndPartOfNoNameOrAddress) {
  for (const char* revision : {"v1.0", "refs/pr/1"})
    EXPECT_THAT(
        gguf_origin(std::string("org/name@") + revision),
        ElementsAre(
            Pair("general.name", text("name")), Pair("general.base_model.count", uint64_t{1}),
            Pair("general.base_model.0.name", text("name")),
            Pair("general.base_model.0.organization", text("org")),
            Pair("general.base_model.0.version", text(revision)),
            Pair("general.base_model.0.repo_url", text("https://huggingface.co/org/name"))));
}

TEST(GgufOrigin, OfAPathTheLastPartIsTheNameWhateverIsInIt) {
  for (const char* path : {"/models/mine@home", "/models/mine@home/", "mine@home"})
    EXPECT_THAT(gguf_origin(path), ElementsAre(Pair("general.name", text("mine@home")))) << path;
}

}  // namespace
}  // namespace qlora::exporting

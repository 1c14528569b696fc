// What the program answers to wrong input: the exit code, and one sentence with what, where and
// how.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/device.h"
#include "tests/cli/program.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  if (!fs::exists(directory)) return names;
  for (const auto& entry : fs::directory_iterator(directory))
    names.push_back(entry.path().filename());
  return names;
}

// Exit code 2, a message with these parts, and nothing in the run directory but perhaps the log.
template <typename... Parts>
void expect_refused(const TempDir& dir, const std::vector<std::string>& arguments,
                    const Parts&... parts) {
  const Finished done = run_qlora(dir, arguments);
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr(parts)...));
  EXPECT_THAT(names_in(dir / "run"), testing::IsSubsetOf({"log.txt"}));
}

void corrupt(const std::string& path, size_t keep) { fs::resize_file(path, keep); }

// bf16 NaN (0x7fc0) into the last weight of the file.
void write_nan_at_the_end(const std::string& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-2, std::ios::end);
  file.write("\xc0\x7f", 2);
}

TEST(WrongInput, ARecipeThatIsNotThere) {
  TempDir dir;
  expect_refused(dir, {"train", "absent.yaml"}, "absent.yaml does not exist");
}

// What the library of file systems throws is a sentence as well.
TEST(WrongInput, ALinkThatLeadsToItself) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const std::string loop = dir / "loop";
  fs::create_symlink("loop", loop);
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"train", loop},
           {"train", recipe, "--set", "model.path=" + loop},
           {"train", recipe, "--set", "lora.from_adapter=" + loop},
           {"resume", loop},
           {"report", loop},
           {"inspect", loop},
           {"export", loop, "--format", "adapter", "--output", dir / "out"},
           {"quantize", "--model", loop, "--method", "nf4", "--output", dir / "out"},
           {"tokenize", "--tokenizer", loop},
           {"import", loop}}) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << arguments[0] << ": " << done.err;
    EXPECT_THAT(done.err, AllOf(HasSubstr("loop"), Not(HasSubstr("filesystem error"))));
  }
}

TEST(WrongInput, AWorkingDirectoryThatIsRemoved) {
  TempDir dir;
  const std::string line =
      std::string("mkdir gone && cd gone && rmdir ../gone && exec ") + QLORA_PROGRAM + " recipes";
  const Finished done = ChildProcess("/bin/sh", {"-c", line}, dir.path()).wait();
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_EQ(done.err, "error: the working directory is removed; change to one that is there\n");
}

TEST(WrongInput, StandardInputThatCannotBeRead) {
  TempDir dir;
  write_recipe_file(dir, tiny_recipe(dir.path()));
  for (const char* option : {"", " --jsonl"}) {
    const std::string line =
        std::string("exec ") + QLORA_PROGRAM + " tokenize --tokenizer model" + option + " < .";
    const Finished done = ChildProcess("/bin/sh", {"-c", line}, dir.path()).wait();
    EXPECT_EQ(done.exit_code, 2);
    EXPECT_EQ(done.err, "error: standard input cannot be read: Is a directory\n");
  }
}

TEST(WrongInput, AFileThatIsNotThereOrIsADirectory) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  dir.write("t.jinja", "{{ messages }}");
  dir.write("m.json", "[]");
  fs::create_directory(dir / "folder");
  const std::string model = dir / "model";
  for (const std::string path : {"absent", "folder"})
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
             {"generate", "--model", model, "--messages", path},
             {"render", "--template", "t.jinja", "--messages", path},
             {"render", "--template", path, "--messages", "m.json"},
             {"render", "--template", "t.jinja", "--messages", "m.json", "--context", path},
             {"train", recipe, "--set", "data.chat_template=" + dir / path},
             {"evaluate", "--model", model, "--data", dir / path},
             {"export", "--model", model, "--adapter", path, "--format", "merged", "--output",
              "out"},
             {"quantize", "--model", path, "--output", "out"},
             {"inspect", path},
             {"tokenize", "--tokenizer", path},
             {"import", path},
             {"report", path},
             {"resume", path}})
      expect_refused(dir, arguments, path);
}

TEST(WrongInput, AFileWhereADirectoryIsToBe) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  ASSERT_EQ(run_qlora(dir, {"train", recipe, "--set", "output.dir=" + dir / "done"}).exit_code, 0);
  const std::string theirs = dir.write("axolotl.yml", "base_model: model\nadapter: qlora\n");
  dir.write("file", "x");
  const std::string below = dir / "file/below", model = dir / "model";
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"report", dir / "done", "--html", below},
           {"export", dir / "done", "--format", "merged", "--output", below},
           {"quantize", "--model", model, "--output", below},
           {"import", theirs, "--output", below},
           {"train", recipe, "--set", "output.dir=" + below},
           {"train", recipe, "--set", "model.device_map=disk", "--set",
            "model.offload_dir=" + below}})
    expect_refused(dir, arguments, "file");
}

TEST(WrongInput, AMistypedTargetIsToldTheModuleItIsNear) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  expect_refused(dir, {"train", recipe, "--set", "lora.targets=[q_porj]"},
                 "lora.targets: 'q_porj' matches no module; did you mean 'q_proj'? The model has");
}

TEST(WrongInput, AnUnknownKeyNamesItsPlaceAndTheKnownKey) {
  TempDir dir;
  const recipes::Recipe recipe = tiny_recipe(dir.path());
  std::string text = recipes::write_recipe(recipe);
  const size_t optim = text.find("optim:\n");
  ASSERT_NE(optim, std::string::npos);
  text.insert(optim + 7, "  learning_rate: 1.0e-3\n");
  const auto line =
      std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(optim), '\n') + 2;
  expect_refused(dir, {"train", dir.write("recipe.yaml", text)},
                 "recipe.yaml:" + std::to_string(line) + ":3", "learning_rate", "optim.lr");
}

TEST(WrongInput, AValueOfTheWrongTypeAndOneOfLaterWork) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  expect_refused(dir, {"train", recipe, "--set", "train.max_steps=many"}, "train.max_steps",
                 "many");
  expect_refused(dir, {"train", recipe, "--set", "optim.name=lars"},
                 "optim.name: lars is not in this version");
}

TEST(WrongInput, AHubIdThatIsNotInTheCacheGivesTheDownloadCommand) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  setenv("HF_HOME", dir.path().c_str(), 1);
  expect_refused(dir, {"train", recipe, "--set", "model.path=someone/some-model"},
                 "someone/some-model", "download");
  unsetenv("HF_HOME");
}

// There is no recipe then, whose key could be named.
TEST(WrongInput, AGivenModelThatIsNotThereIsNamedByTheOption) {
  TempDir dir;
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"generate", "--model", "nope", "--prompt", "hi"},
           {"export", "--model", "nope", "--format", "merged", "--output", dir / "out"},
           {"quantize", "--model", "nope", "--output", dir / "out"}}) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2);
    EXPECT_THAT(done.err, AllOf(HasSubstr("--model: nope does not exist; give a Hugging Face"),
                                Not(HasSubstr("model.path"))));
  }
  const Finished inspected = run_qlora(dir, {"inspect", "nope"});
  EXPECT_EQ(inspected.exit_code, 2);
  EXPECT_THAT(inspected.err, HasSubstr("error: nope does not exist"));
}

TEST(WrongInput, ARunGivenAsAModelOrAnAdapterIsNamedAsARun) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  const std::string model = dir / "model", run = dir / "run";
  ASSERT_EQ(run_qlora(dir, {"train", recipe}).exit_code, 0);
  const auto refusal = [&](const std::vector<std::string>& given) {
    std::vector<std::string> arguments = {"generate", "--prompt", "hi"};
    arguments.insert(arguments.end(), given.begin(), given.end());
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    return done.err;
  };
  EXPECT_THAT(refusal({"--model", run}),
              HasSubstr("--model: " + run +
                        " is the directory of a run; give it alone, in place "
                        "of --model\n"));
  EXPECT_THAT(refusal({"--model", run + "/checkpoint-000006"}),
              HasSubstr("is a checkpoint of a run; give the run in place of --model, and "
                        "--checkpoint checkpoint-000006"));
  EXPECT_THAT(refusal({"--model", model, "--adapter", run}),
              HasSubstr("--adapter: " + run +
                        " is the directory of a run; give it alone, in place of --model and "
                        "--adapter, or its adapter, " +
                        run + "/adapter\n"));
  EXPECT_THAT(refusal({"--model", model, "--adapter", run + "/checkpoint-000006"}),
              HasSubstr("there is none; " + run + "/checkpoint-000006/adapter is one"));
  const Finished quantize = run_qlora(dir, {"quantize", "--model", run, "--output", dir / "out"});
  EXPECT_EQ(quantize.exit_code, 2);
  EXPECT_THAT(quantize.err, HasSubstr("is the directory of a run; make a model of it first: qlora "
                                      "export " +
                                      run + " --format merged --output DIR"));
}

// As for the Hub.
TEST(WrongInput, AModelOrAnAdapterWithTheRecipeOfItsRunBesideItIsNoRun) {
  TempDir dir;
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, tiny_recipe(dir.path()))}).exit_code,
            0);
  for (const char* place : {"model", "run/adapter"})
    std::filesystem::copy_file(dir / "run/recipe.resolved.yaml",
                               dir / (std::string(place) + "/recipe.resolved.yaml"));
  const Finished done = run_qlora(dir, {"generate", "--model", dir / "model", "--adapter",
                                        dir / "run/adapter", "--prompt", "x"});
  EXPECT_EQ(done.exit_code, 0) << done.err;
}

TEST(WrongInput, InspectDataTellsOfAMissingModelAndOfMissingRowsTogether) {
  TempDir dir;
  const recipes::Recipe tiny = tiny_recipe(dir.path());
  const std::string recipe = write_recipe_file(dir, tiny), rows = tiny.data.train[0].path;
  fs::remove_all(dir / "model");
  fs::remove(rows);
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"inspect", "data", recipe}, {"train", recipe}})
    expect_refused(dir, command, recipe + ":2:3: model.path: " + dir / "model",
                   "data.train[0]: " + rows);
}

TEST(WrongInput, ATruncatedSafetensorsFile) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  corrupt(dir / "model/model.safetensors", 5000);
  expect_refused(dir, {"train", recipe}, "model.safetensors");
}

TEST(WrongInput, AModelDirectoryWithoutItsConfig) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  fs::remove(dir / "model/config.json");
  const std::string place = recipe + ":2:3: model.path: ";
  for (const std::string command : {"train", "plan"}) {
    expect_refused(dir, {command, recipe}, place, "model must hold config.json", "copy it there");
    expect_refused(dir, {command, recipe, "--set", "model.path=" + dir / "run"}, "model.path: ");
  }
  expect_refused(dir, {"generate", "--model", dir / "model", "--prompt", "hi"},
                 "model must hold config.json");
}

void set_key(const std::string& path, const std::string& key, const nlohmann::json& value) {
  nlohmann::json file = nlohmann::json::parse(read_file(path));
  file[key] = value;
  std::ofstream(path) << file.dump();
}

TEST(WrongInput, AModelOfNoPositions) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  set_key(dir / "model/config.json", "max_position_embeddings", 0);
  expect_refused(dir, {"train", recipe}, "model.path: ",
                 "max_position_embeddings must be an integer from 1 to 2147483648, found 0");
}

TEST(WrongInput, AChatTemplateThatIsNoText) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  set_key(dir / "model/tokenizer_config.json", "chat_template", 5);
  expect_refused(dir, {"train", recipe},
                 "chat_template must be a string, or an array of named templates, found 5");
}

TEST(WrongInput, AGpuOfAProgramWithoutCuda) {
  if (cuda_compiled()) GTEST_SKIP() << "built with CUDA";
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  expect_refused(dir, {"train", recipe, "--set", "train.device=cuda"}, "make cuda builds one");
}

TEST(WrongInput, ATruncatedGgufFile) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  write_tiny_gguf(dir / "model.gguf");
  corrupt(dir / "model.gguf", fs::file_size(dir / "model.gguf") - 100);
  expect_refused(dir, {"train", recipe, "--set", "model.path=" + dir / "model.gguf"}, "model.gguf");
}

TEST(WrongInput, AWeightThatIsNotANumber) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  write_nan_at_the_end(dir / "model/model.safetensors");
  expect_refused(dir, {"train", recipe}, "model.safetensors", ".weight");
}

TEST(WrongInput, ANumberOutsideTheRangeOfItsOption) {
  TempDir dir;
  const auto refused = [&](const std::vector<std::string>& arguments, const std::string& option,
                           const std::string& found) {
    expect_refused(dir, arguments, option, "must be a number of at least", "found " + found);
  };
  refused({"quantize", "--model", "m", "--output", "o", "--threads", "-1"}, "--threads", "-1");
  for (const char* command : {"generate", "chat"}) {
    refused({command, "--model", "m", "--threads", "-2"}, "--threads", "-2");
    refused({command, "--model", "m", "--seed", "-1"}, "--seed", "-1");
    refused({command, "--model", "m", "--temperature", "nan"}, "--temperature", "nan");
    refused({command, "--model", "m", "--top-p", "nan"}, "--top-p", "nan");
  }
  for (const char* number : {"0", "-3", "nan"})
    for (const char* command : {"generate", "chat", "evaluate"})
      expect_refused(dir, {command, "--model", "m", "--max-new-tokens", number},
                     "--max-new-tokens: must be a number above 0, found " + std::string(number));
  refused({"evaluate", "run", "--show", "-1"}, "--show", "-1");
  refused({"inspect", "data", "r.yaml", "--rows", "-5"}, "--rows", "-5");
}

TEST(WrongInput, AnOptionOfOneValueThatIsGivenMoreThanOnce) {
  const TempDir dir;
  expect_refused(dir, {"generate", "--model", "m", "--prompt", "a", "--prompt", "b"},
                 "qlora generate: --prompt is given twice, and takes one value");
  expect_refused(dir, {"evaluate", "--show", "1", "--show", "2", "--show", "3"},
                 "qlora evaluate: --show is given 3 times, and takes one value");
}

TEST(WrongInput, ARowWithoutTheMappedFields) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  std::ofstream(dir / "rows.jsonl", std::ios::app) << R"({"question": "why?"})" << '\n';
  expect_refused(dir, {"train", recipe}, "rows.jsonl:24", "messages");
}

TEST(WrongInput, AFileOfMessagesThatIsNoJson) {
  TempDir dir;
  dir.write("m.json", "[{\"role\": \"user\",\n}]");
  dir.write("t.jinja", "{{ messages }}");
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"render", "--template", "t.jinja", "--messages", "m.json"},
        {"generate", "--model", "absent", "--messages", "m.json"}}) {
    const Finished done = run_qlora(dir, arguments);
    EXPECT_EQ(done.exit_code, 2) << done.err;
    EXPECT_THAT(done.err, AllOf(HasSubstr("m.json must be a JSON array of messages"),
                                HasSubstr("line 2, column 1"), Not(HasSubstr("json.exception"))));
  }
}

TEST(WrongInput, MessagesThatAreNoConversationAreToldByGenerateOnARunToo) {
  TempDir dir;
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, tiny_recipe(dir.path()))}).exit_code,
            0);
  for (const char* text : {"[]", "[\"x\"]", R"([{"role": 5, "content": "x"}])"}) {
    dir.write("m.json", text);
    const Finished done = run_qlora(dir, {"generate", dir / "run", "--messages", "m.json"});
    EXPECT_EQ(done.exit_code, 2) << text;
    EXPECT_THAT(done.err, AllOf(HasSubstr("message"), Not(HasSubstr("json.exception")))) << text;
  }
}

TEST(WrongInput, ADirectoryThatHoldsSomethingElseIsNotWrittenTo) {
  TempDir dir;
  const std::string recipe = write_recipe_file(dir, tiny_recipe(dir.path()));
  dir.write("thesis/chapter1.txt", "precious");
  const Finished done = run_qlora(dir, {"train", recipe, "--set", "output.dir=" + dir / "thesis"});
  EXPECT_EQ(done.exit_code, 2) << done.err;
  EXPECT_THAT(done.err, HasSubstr("thesis"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir / "thesis"), fs::directory_iterator()), 1);
}

}  // namespace
}  // namespace qlora::test

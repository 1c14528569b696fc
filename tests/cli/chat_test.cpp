// qlora chat as a user has it: through a pipe, and at a terminal.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/cli/program.h"
#include "tests/support/small_t5.h"

namespace qlora::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

ChildProcess chat_process(const TempDir& dir, const std::string& input,
                          const std::string& options) {
  dir.write("input.txt", input);
  return ChildProcess(
      "/bin/sh",
      {"-c", std::string("exec " QLORA_PROGRAM " chat --threads 1 ") + options + " < input.txt"},
      dir.path());
}

Finished chat(const TempDir& dir, const std::string& input, const std::string& options) {
  return chat_process(dir, input, options).wait();
}

TEST(Chat, CommandsAreObeyedAndUnknownOnesNamed) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const Finished done = chat(dir, "/help\n/rest\n/nonsense\n/base\nhi\n/reset\n/system be brief\n",
                             "--model model --max-new-tokens 3 --temperature 0");
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("/system TEXT"), HasSubstr("/base"),
                    HasSubstr("there is no command /rest; did you mean /reset? /help"),
                    HasSubstr("there is no command /nonsense; /help lists them"),
                    HasSubstr("/base: this model has no adapter"), HasSubstr("started over\n"),
                    HasSubstr("started over with this system message")));
}

TEST(Chat, LinesOfAFileMayEndAsOnWindowsAndATabEndsACommand) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::string options = "--model model --max-new-tokens 3 --temperature 0";
  const Finished done =
      chat(dir, "hi\r\n\r\n/system\tbe brief\r\nhi\r\n/quit\t\r\nhi\r\n", options);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("started over with this system message"),
                              Not(HasSubstr("there is no command"))));
  EXPECT_EQ(done.out, chat(dir, "hi\n/system be brief\nhi\n", options).out);
}

TEST(Chat, WhatIsNoUtf8IsRefusedWhereItIsTyped) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  const std::string options = "--model model --max-new-tokens 3 --temperature 0";
  const Finished done = chat(dir, "/system b\xff\nhi\xfe\nhi\n", options);
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("the line is no valid UTF-8 from its byte 10 on"),
                              HasSubstr("the line is no valid UTF-8 from its byte 3 on"),
                              Not(HasSubstr("started over")), Not(HasSubstr("chat template"))));
  EXPECT_EQ(done.out, chat(dir, "hi\n", options).out) << "the chat goes on as if nothing was typed";
  const std::string refused = "must be valid UTF-8, but the byte 0xFF at offset 1 is not";
  const Finished started = chat(dir, "hi\n", options + " --system b\xff");
  EXPECT_EQ(started.exit_code, 2);
  EXPECT_THAT(started.err, AllOf(HasSubstr("--system " + refused), Not(HasSubstr("base model"))));
  const Finished asked =
      run_qlora(dir, {"generate", "--model", dir / "model", "--prompt", "b\xff"});
  EXPECT_EQ(asked.exit_code, 2);
  EXPECT_THAT(asked.err, HasSubstr("--prompt " + refused));
}

TEST(Chat, WhatTheTemplateRefusesIsToldAndTheChatGoesOn) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  dir.write(
      "model/chat_template.jinja",
      "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system here') }}"
      "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
      "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}");
  const Finished done = chat(dir, "/system be brief\nhi\n/system\nhi\n/nonsense\n",
                             "--model model --max-new-tokens 3 --temperature 0");
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("no system here"), HasSubstr("started over without"),
                              HasSubstr("there is no command /nonsense")));
}

TEST(Chat, TheBaseAnswersTheLastMessageAndIsNotKept) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.threads = 1;
  recipe.optim.lr = 0.02;
  recipe.train.max_steps = 40;
  recipe.train.save_every = 0;
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  const std::string greedy = "run --max-new-tokens 8 --temperature 0";
  const std::string adapter = chat(dir, "say 9\n", greedy).out;
  const Finished both = chat(dir, "say 9\n/base\n/reset\nsay 9\n", greedy);
  EXPECT_EQ(both.exit_code, 0) << both.err;
  ASSERT_GT(both.out.size(), 2 * adapter.size());
  EXPECT_TRUE(both.out.starts_with(adapter)) << both.out;
  EXPECT_TRUE(both.out.ends_with(adapter)) << both.out;
  EXPECT_NE(both.out.substr(adapter.size(), both.out.size() - 2 * adapter.size()), adapter);
}

TEST(Chat, OfABaseThatLacksWhatItsAdapterBeganWithItIsSaid) {
  TempDir dir;
  recipes::Recipe recipe = tiny_recipe(dir.path());
  recipe.train.threads = 1;
  recipe.train.save_every = 0;
  const std::string sentence = "what answers without the adapter is not the original model";
  const std::string few = " --max-new-tokens 2 --temperature 0";
  const auto base_only = [&](const std::string& run) {
    return run_qlora(dir, {"generate", run, "--prompt", "hi", "--base-only", "--threads", "1",
                           "--max-new-tokens", "2"});
  };
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  EXPECT_THAT(base_only("run").err, Not(HasSubstr(sentence)));
  EXPECT_THAT(chat(dir, "hi\n/base\n", "run" + few).err, Not(HasSubstr(sentence)));
  recipe.lora.init = "pissa";
  recipe.output.dir = dir / "pissa";
  ASSERT_EQ(run_qlora(dir, {"train", write_recipe_file(dir, recipe)}).exit_code, 0);
  const auto said = AllOf(HasSubstr(sentence), HasSubstr("the initialisation pissa moved"),
                          HasSubstr("qlora generate --model " + dir / "model" + " asks"));
  const Finished answer = base_only("pissa");
  EXPECT_EQ(answer.exit_code, 0) << answer.err;
  EXPECT_THAT(answer.err, said);
  EXPECT_THAT(chat(dir, "hi\n/base\n", "pissa" + few).err, said);
  EXPECT_THAT(chat(dir, "hi\n", "pissa" + few).err, Not(HasSubstr(sentence)));
  EXPECT_THAT(chat(dir, "hi\n", "--model pissa/base" + few).err,
              AllOf(HasSubstr(sentence), HasSubstr("its initialisation moved"),
                    Not(HasSubstr("asks the original"))));
}

TEST(Chat, CtrlCStopsTheAnswerAndNotTheChat) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  ChildProcess process =
      chat_process(dir, "hi\n/help\n", "--model model --max-new-tokens 1000000 --temperature 0");
  ASSERT_TRUE(process.wait_until([&] { return read_file(dir / "stdout.txt").size() > 10; }));
  process.send(SIGINT);
  const Finished done = process.wait();
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err, AllOf(HasSubstr("(stopped)"), HasSubstr("/system TEXT")));
}

TEST(Chat, AConversationThatIsTooLongIsSaidAndTheChatGoesOn) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  std::string input(10000, 'x');
  input += "\n/help\n";
  const Finished done = chat(dir, input, "--model model --max-new-tokens 2 --temperature 0");
  EXPECT_EQ(done.exit_code, 0) << done.err;
  EXPECT_THAT(done.err,
              AllOf(HasSubstr("(max_position_embeddings), its answer among them; the message was "
                              "left out: write a shorter one\n"),
                    HasSubstr("/system TEXT")));
}

void set_positions(const std::string& model, int64_t positions) {
  const std::string path = model + "/config.json";
  nlohmann::json config = nlohmann::json::parse(read_file(path));
  config["max_position_embeddings"] = positions;
  std::ofstream(path) << config.dump();
}

TEST(Chat, AConversationThatFillsTheModelsPositionsIsSaidWithWhatToDo) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  set_positions(dir / "model", 120);
  const Finished done = chat(dir, "hi\nmore\n/reset\nhi\n", "--model model --temperature 0");
  EXPECT_EQ(done.exit_code, 0) << done.err;
  const size_t again = done.err.find("started over");
  ASSERT_NE(again, std::string::npos) << done.err;
  const std::string cut = "with it the conversation fills the 120 positions";
  EXPECT_THAT(done.err.substr(0, again),
              AllOf(HasSubstr(cut),
                    HasSubstr("start over with /reset, and with a smaller "
                              "--max-new-tokens more messages have room"),
                    HasSubstr("with this message the conversation has "),
                    HasSubstr("and the model takes 120 (max_position_embeddings)"),
                    HasSubstr("write a shorter one, or start over with /reset")));
  EXPECT_THAT(done.err.substr(again), HasSubstr(cut)) << "the message was answered";
}

TEST(Chat, ThatLittleRoomIsLeftIsSaidBeforeTheEndAndALimitOfTheAnswerByItsOption) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  set_positions(dir / "model", 120);
  const std::string greedy = "--model model --temperature 0 --max-new-tokens ";
  const Finished done = chat(dir, "hi\n", greedy + "80");
  EXPECT_THAT(done.err, AllOf(HasSubstr("(cut off after 80 tokens; --max-new-tokens N allows"),
                              HasSubstr("warning: 19 of the 120 tokens that the model takes are "
                                        "left for the next message"),
                              Not(HasSubstr("fills"))));
  EXPECT_THAT(chat(dir, "hi\n", greedy + "20").err, Not(HasSubstr("are left for")));
}

TEST(Chat, AModelWithAnEncoderIsRefusedThoughItHasATemplate) {
  TempDir dir;
  write_small_t5(dir / "model", 48);
  const Finished done = chat(dir, "hi\n", "--model model");
  EXPECT_EQ(done.exit_code, 2);
  EXPECT_THAT(done.err, AllOf(HasSubstr("the model has an encoder and knows no conversations"),
                              HasSubstr("use qlora generate --prompt TEXT")));
  EXPECT_EQ(done.out, "");
}

// The program at a terminal of its own.
class AtATerminal {
 public:
  explicit AtATerminal(const TempDir& dir, const char* max_new_tokens = "3") {
    pid_ = forkpty(&terminal_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    setenv("HOME", dir.path().c_str(), 1);
    setenv("TERM", "xterm", 1);
    unsetenv("XDG_STATE_HOME");
    if (chdir(dir.path().c_str()) != 0) _exit(127);
    execl(QLORA_PROGRAM, QLORA_PROGRAM, "chat", "--model", "model", "--threads", "1",
          "--max-new-tokens", max_new_tokens, "--temperature", "0", nullptr);
    _exit(127);
  }
  ~AtATerminal() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    close(terminal_);
  }

  void type(const std::string& keys) {
    ASSERT_EQ(write(terminal_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }

  void interrupt() { ASSERT_EQ(kill(pid_, SIGINT), 0); }

  // Reads until `text` has come, after what earlier calls have read; a minute at most, or `within`.
  bool shows(const std::string& text, std::chrono::milliseconds within = std::chrono::minutes(5)) {
    using std::chrono::steady_clock;
    const auto end = steady_clock::now() + within;
    for (;;) {
      if (const size_t at = screen_.find(text); at != std::string::npos) {
        screen_.erase(0, at + text.size());
        return true;
      }
      pollfd ready = {terminal_, POLLIN, 0};
      char bytes[4096];
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(end - steady_clock::now()).count();
      if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
      const ssize_t count = read(terminal_, bytes, sizeof(bytes));
      if (count <= 0) return false;
      screen_.append(bytes, static_cast<size_t>(count));
      everything_.append(bytes, static_cast<size_t>(count));
    }
  }

  // All that was read so far.
  const std::string& everything() const { return everything_; }

  // Whether a line is asked for and edited: libedit takes the terminal over a moment after the
  // prompt, and keys that edit mean nothing before.
  bool prompts() {
    if (!shows("> ")) return false;
    termios mode{};
    for (int i = 0; i < 30000; ++i) {
      if (tcgetattr(terminal_, &mode) == 0 && (mode.c_lflag & ICANON) == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  // -1 if the program has not ended after a minute.
  int exit_code() {
    int status = -1;
    for (int i = 0; i < 3000 && pid_ > 0; ++i) {
      if (waitpid(pid_, &status, WNOHANG) == pid_) pid_ = -1;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return pid_ < 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  int terminal_ = -1;
  pid_t pid_;
  std::string screen_, everything_;
};

TEST(Chat, AtATerminalCtrlCAtAnEmptyPromptAsksAgain) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  AtATerminal chat(dir);
  ASSERT_TRUE(chat.prompts());
  chat.type("\x03");
  ASSERT_TRUE(chat.shows("^C"));
  ASSERT_TRUE(chat.prompts());
  chat.type("/help\n");
  EXPECT_TRUE(chat.shows("/system TEXT"));
  ASSERT_TRUE(chat.prompts());
  chat.type("\x04");
  EXPECT_EQ(chat.exit_code(), 0);
}

TEST(Chat, AtATerminalASignalOutsideAnAnswerDoesNothing) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  AtATerminal chat(dir);
  ASSERT_TRUE(chat.prompts());
  chat.interrupt();
  chat.type("hi\n");
  ASSERT_TRUE(chat.prompts());
  chat.type("\x04");
  EXPECT_EQ(chat.exit_code(), 0);
  EXPECT_THAT(chat.everything(), Not(HasSubstr("(stopped)"))) << "a wish from before the answer";
}

TEST(Chat, AtATerminalManyCtrlCsStopTheAnswerAndNotTheChat) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  AtATerminal chat(dir, "1000000");
  ASSERT_TRUE(chat.prompts());
  chat.type("hi\n");
  bool stopped = false;
  for (int i = 0; i < 6000 && !stopped; ++i) {  // before, within and behind the answer
    for (int again = 0; again < 3; ++again) chat.interrupt();
    stopped = chat.shows("(stopped)", std::chrono::milliseconds(10));
  }
  ASSERT_TRUE(stopped);
  ASSERT_TRUE(chat.prompts());
  chat.type("/help\n");
  EXPECT_TRUE(chat.shows("/system TEXT"));
}

TEST(Chat, AtATerminalLinesAreEditedAndRememberedAndCtrlCDropsThem) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  {
    AtATerminal chat(dir);
    ASSERT_TRUE(chat.prompts());
    chat.type("/hexlp\x02\x02\x7f\n");  // two to the left, and the x away
    EXPECT_TRUE(chat.shows("/system TEXT"));
    ASSERT_TRUE(chat.prompts());
    chat.type("half a line\x03");
    ASSERT_TRUE(chat.shows("^C"));
    ASSERT_TRUE(chat.prompts());
    chat.type("\x04");
    EXPECT_EQ(chat.exit_code(), 0);
  }
  const std::string file = dir / ".local/state/qlora/chat_history";
  ASSERT_TRUE(fs::exists(file));
  EXPECT_THAT(read_file(file), AllOf(HasSubstr("/help"), Not(HasSubstr("half"))));
  EXPECT_EQ(fs::status(file).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  AtATerminal again(dir);
  ASSERT_TRUE(again.prompts());
  again.type("\x10\n");  // the line before
  EXPECT_TRUE(again.shows("/system TEXT"));
}

TEST(Chat, AtATerminalTwoAtOnceRememberTheLinesOfBoth) {
  TempDir dir;
  write_tiny_directory(dir / "model");
  {
    AtATerminal first(dir), second(dir);
    ASSERT_TRUE(first.prompts());
    ASSERT_TRUE(second.prompts());
    first.type("/help\n");
    ASSERT_TRUE(first.prompts());
    second.type("/system be short\n");
    ASSERT_TRUE(second.prompts());
    for (AtATerminal* chat : {&first, &second}) {
      chat->type("\x04");
      EXPECT_EQ(chat->exit_code(), 0);
    }
  }
  // The file has spaces as their numbers.
  EXPECT_THAT(read_file(dir / ".local/state/qlora/chat_history"),
              AllOf(HasSubstr("/help"), HasSubstr("/system")));
}

}  // namespace
}  // namespace qlora::test

#include "tests/support/child_process.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <thread>

#include "base/error.h"
#include "tests/support/temp_dir.h"

namespace qlora::test {
namespace {

constexpr int kCouldNotStart = 127;

void send_to_file(int descriptor, const std::string& path) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (file < 0 || dup2(file, descriptor) < 0) _exit(kCouldNotStart);
}

void limit_files(uint64_t bytes) {
  const rlimit limit = {bytes, bytes};
  signal(SIGXFSZ, SIG_DFL);  // as a shell's `ulimit -f` leaves it
  if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(kCouldNotStart);
}

std::vector<std::string> environment_with(const std::vector<std::string>& variables) {
  std::vector<std::string> all = variables;
  for (char** own = environ; *own != nullptr; ++own) {
    const std::string text = *own;
    const std::string name = text.substr(0, text.find('=') + 1);
    if (std::ranges::none_of(variables, [&](const auto& v) { return v.starts_with(name); }))
      all.push_back(text);
  }
  return all;
}

// What exec takes; points into `texts`.
std::vector<char*> pointers_to(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

ChildProcess::ChildProcess(const std::string& program, const std::vector<std::string>& arguments,
                           const std::string& directory, std::optional<uint64_t> largest_file,
                           const std::vector<std::string>& variables)
    : out_path_(directory + "/stdout.txt"), err_path_(directory + "/stderr.txt") {
  std::vector<std::string> command = {program};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const std::vector<std::string> environment = environment_with(variables);
  const std::vector<char*> argv = pointers_to(command), envp = pointers_to(environment);
  pid_ = fork();
  check(pid_ >= 0, "no process could be made");
  if (pid_ > 0) return;
  if (chdir(directory.c_str()) != 0) _exit(kCouldNotStart);
  send_to_file(STDOUT_FILENO, out_path_);
  send_to_file(STDERR_FILENO, err_path_);
  if (largest_file) limit_files(*largest_file);
  signal(SIGINT, SIG_DFL);  // which tests that run in the background of a script ignore
  execve(argv[0], argv.data(), envp.data());
  _exit(kCouldNotStart);
}

ChildProcess::~ChildProcess() {
  if (has_ended()) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool ChildProcess::has_ended() {
  if (!ended_) ended_ = waitpid(pid_, &status_, WNOHANG) == pid_;
  return ended_;
}

bool ChildProcess::wait_until(const std::function<bool()>& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (!condition()) {
    if (has_ended()) return false;
    check(std::chrono::steady_clock::now() < end, "five minutes have passed; {} tells what went on",
          read_file(err_path_));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

void ChildProcess::send(int signal) { kill(pid_, signal); }

Finished ChildProcess::wait() {
  wait_until([] { return false; });
  Finished finished;
  if (WIFEXITED(status_)) finished.exit_code = WEXITSTATUS(status_);
  if (WIFSIGNALED(status_)) finished.signal = WTERMSIG(status_);
  finished.out = read_file(out_path_);
  finished.err = read_file(err_path_);
  return finished;
}

}  // namespace qlora::test

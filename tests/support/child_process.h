// A program as a process of its own: started, signalled, waited for.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace qlora::test {

struct Finished {
  int exit_code = -1;  // -1: ended by a signal
  int signal = 0;
  std::string out, err;
};

class ChildProcess {
 public:
  // Starts `program` with its output going to files in `directory`, which is also where it runs.
  // With `largest_file`, a write beyond that many bytes is refused, as by `ulimit -f`: by SIGXFSZ,
  // or with EFBIG, which is like a full disk, if the program ignores that signal. Each of
  // `variables`, "NAME=value", is added to this process's environment or replaces one of it.
  ChildProcess(const std::string& program, const std::vector<std::string>& arguments,
               const std::string& directory, std::optional<uint64_t> largest_file = {},
               const std::vector<std::string>& variables = {});
  ~ChildProcess();  // kills it if it still runs
  ChildProcess(const ChildProcess&) = delete;
  ChildProcess& operator=(const ChildProcess&) = delete;

  // Until `condition` holds (true) or the process has ended (false); five minutes at most, then
  // Error.
  bool wait_until(const std::function<bool()>& condition);
  void send(int signal);
  Finished wait();

 private:
  bool has_ended();

  pid_t pid_;
  int status_ = 0;
  bool ended_ = false;
  std::string out_path_, err_path_;
};

}  // namespace qlora::test

#include "cli/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "base/error.h"

namespace qlora::cli {
namespace {

// The first failure's errno. The stream forgets it, and drops what it could not write.
int failure = 0;
bool reader_is_gone = false;

void note(int error) {
  if (error == EPIPE) reader_is_gone = true;
  if (error != EPIPE && failure == 0) failure = error;
}

[[noreturn]] void fail_on_output(int error) {
  fail<IoError>("standard output cannot be written: {}", std::strerror(error));
}

}  // namespace

void open_missing_streams() {
  // A file gets the lowest free number: that of the stream, for those below it are open by then.
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream)
    if (fcntl(stream, F_GETFD) == -1 && open("/dev/null", O_RDWR) != stream) return;
}

bool put_out(std::string_view text) {
  const bool taken =
      std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
  if (!taken) note(errno);
  return taken || failure == 0;
}

void print_now(std::string_view text) {
  if (!put_out(text)) fail_on_output(failure);
}

void finish_output() {
  if (std::fflush(stdout) != 0) note(errno);
  if (failure != 0) fail_on_output(failure);
  if (std::ferror(stdout) && !reader_is_gone) throw IoError("standard output cannot be written");
}

bool is_of_output(const std::exception& error) {
  const auto* reason = dynamic_cast<const std::system_error*>(&error);
  if (reason == nullptr || !std::ferror(stdout)) return false;
  const int code = reason->code().value();
  const bool is_known = code == failure || (reader_is_gone && code == EPIPE);
  const bool has_failed_before = failure != 0 || reader_is_gone;
  if (has_failed_before && !is_known) return false;
  note(code);
  return true;
}

}  // namespace qlora::cli

#include "cli/standard_streams.h"

#include <fcntl.h>
#include <unistd.h>

namespace qlora::cli {

void open_missing_streams() {
  // A file gets the lowest free number: that of the stream, for those below it are open by then.
  for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; ++stream)
    if (fcntl(stream, F_GETFD) == -1 && open("/dev/null", O_RDWR) != stream) return;
}

}  // namespace qlora::cli

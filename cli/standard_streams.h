// Standard input, output and error, where whoever started the program left some of them closed.
#pragma once

namespace qlora::cli {

// Opens /dev/null in the place of those that are closed ("<&- >&- 2>&-"). The next file that is
// opened would get their number, and what is meant for the terminal would land in it. For the begin
// of the program.
void open_missing_streams();

}  // namespace qlora::cli

// Standard input, output and error: those that whoever started the program left closed, and whether
// what is printed arrives.
#pragma once

#include <exception>
#include <string_view>

namespace qlora::cli {

// Opens /dev/null in the place of those that are closed ("<&- >&- 2>&-"). The next file that is
// opened would get their number, and what is meant for the terminal would land in it. For the begin
// of the program.
void open_missing_streams();

// Hands `text`, and what was printed before it, to the system at once. False if standard output
// does not take it, which finish_output() will tell as well; a reader that is gone is no failure
// (cli/stop_signal.h).
bool put_out(std::string_view text);
// The same for commands that do nothing but print, which have nothing more to do then: IoError.
void print_now(std::string_view text);

// Hands what is left to the system. IoError ("standard output cannot be written: No space left on
// device") if that fails, or if an earlier part was not taken. For the end of the program.
void finish_output();

// Whether an exception is that of fmt::print() because standard output takes no more: once it has
// failed, that of another error is another's.
bool is_of_output(const std::exception& error);

}  // namespace qlora::cli

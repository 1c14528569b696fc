// The directory that the program is started in.
#pragma once

namespace qlora::cli {

// Ends the program with a sentence and exit code 2 if the working directory is removed: MKL, which
// LibTorch holds, asks for it as it is loaded, and ends the program with a sentence about LibTorch.
// For the section of a program whose functions run before those of all libraries
// (base/short_waits.h); calls nothing but the kernel.
void require_working_directory(int argc, char** argv, char** environment);

}  // namespace qlora::cli

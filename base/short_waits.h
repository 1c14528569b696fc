// How long threads that wait for each other spin before they sleep. OpenMP's (libgomp) by default
// spin for many milliseconds at the end of each parallel region. On a quiet machine that costs
// nothing, but beside other programs a spinning thread takes the time that the thread it waits for
// would need: steps then take ten times as long and more. The turns of kShortWaits bridge the gaps
// between the regions of a step or of a generated token, some 300 microseconds; who waits longer
// sleeps.
//
// libgomp reads its settings in a constructor, before main(). So a program sets them one step
// earlier, and starts itself once more with kShortWaits in its environment. That happens before
// the constructors of all libraries, LibTorch among them, and takes some 20 ms; the process and its
// arguments stay the same. Whoever has set OMP_WAIT_POLICY or GOMP_SPINCOUNT decides, and nothing
// is restarted.
//
// A program, also one that uses the libraries by find_package(qlora), says beside its main():
//
//   QLORA_SHORT_WAITS
#pragma once

namespace qlora {

inline constexpr char kShortWaits[] = "GOMP_SPINCOUNT=10000";

// Returns if the environment has a setting already, or if the program cannot be started again.
// Runs before libc's own constructors, and calls nothing but the kernel.
void restart_with_short_waits(int argc, char** argv, char** environment);

}  // namespace qlora

// The loader first calls what stands in this section of a program (not of a shared library).
#define QLORA_SHORT_WAITS                                                         \
  [[gnu::used, gnu::section(".preinit_array")]] static void (*qlora_short_waits)( \
      int, char**, char**) = ::qlora::restart_with_short_waits;

// Which part of the time that this process's threads wanted to compute other programs had the
// processors: the kernel counts for each thread how long it ran and how long it was ready to run
// and waited for a processor (/proc/self/task/*/schedstat). Threads that sleep, since they wait for
// another one or for a file, count as neither.
//
//   taken = waited / (ran + waited)
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace qlora {

class ProcessorShare {
 public:
  // From now on. `root` stands for / in the files that say so.
  explicit ProcessorShare(std::filesystem::path root = "/");
  // Until now, in [0, 1]; 0 where the kernel does not say. Of a process with more threads than it
  // has cores, its own threads are among the others.
  double taken_by_others() const;

 private:
  struct Times {
    int64_t ran = 0, waited = 0;  // ns, of all threads that there are
  };
  static Times times(const std::filesystem::path& root);

  std::filesystem::path root_;
  Times begin_;
};

// "measured while other programs had 45 % of the processor time that this one wanted; ...", or
// empty while they have had less than a fifth of it.
std::string taken_sentence(double taken_by_others);

}  // namespace qlora

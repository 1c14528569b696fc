// Stands in for the system calls that change files and kills the process at the one that was asked
// for, so that a test can look at what is left on the disk after each of them. Linked into a test
// program, or loaded into any other by LD_PRELOAD:
//
//   QLORA_KILL_AT_CALL=7         SIGKILL at the seventh such call; a write is done by half first
//   QLORA_COUNT_CALLS_IN=FILE    at a proper end, the number of calls is written there
//   QLORA_NO_EXCHANGE=1          renameat2() with flags fails, as on file systems without it
//
// Counted are calls on regular files and directories alone: not what goes to a terminal or a pipe.
#define _GNU_SOURCE
#include "tests/support/kill_at_call.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls, kill_at;
static atomic_int no_exchange;
static const char* kept_name;

void kill_at_call(long number) {
  calls = 0;
  kill_at = number;
}
void refuse_exchange(int refuse) { no_exchange = refuse; }
void refuse_rename_of(const char* name) { kept_name = name; }

__attribute__((constructor)) static void read_environment(void) {
  const char* number = getenv("QLORA_KILL_AT_CALL");
  if (number != NULL) kill_at = atol(number);
  no_exchange = getenv("QLORA_NO_EXCHANGE") != NULL;
}

__attribute__((destructor)) static void tell_number(void) {
  const char* path = getenv("QLORA_COUNT_CALLS_IN");
  if (path == NULL) return;
  FILE* file = fopen(path, "w");
  if (file == NULL) return;
  fprintf(file, "%ld\n", (long)calls);
  fclose(file);
}

static int is_reached(void) { return atomic_fetch_add(&calls, 1) + 1 == kill_at; }

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static void count(void) {
  if (is_reached()) die();
}

static int is_counted(int file) {
  if (file <= STDERR_FILENO) return 0;  // how much is told depends on the time
  const int before = errno;
  struct stat status;
  const int on_disk =
      fstat(file, &status) == 0 && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
  errno = before;
  return on_disk;
}

ssize_t write(int file, const void* bytes, size_t size) {
  if (is_counted(file) && is_reached()) {
    syscall(SYS_write, file, bytes, size / 2);
    die();
  }
  return syscall(SYS_write, file, bytes, size);
}

ssize_t writev(int file, const struct iovec* parts, int number) {
  if (is_counted(file)) count();
  return syscall(SYS_writev, file, parts, number);
}

ssize_t pwrite(int file, const void* bytes, size_t size, off_t at) {
  if (is_counted(file)) count();
  return syscall(SYS_pwrite64, file, bytes, size, at);
}

int fsync(int file) {
  if (is_counted(file)) count();
  return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  if (is_counted(file)) count();
  return (int)syscall(SYS_fdatasync, file);
}

int ftruncate(int file, off_t size) {
  if (is_counted(file)) count();
  return (int)syscall(SYS_ftruncate, file, size);
}

int renameat2(int from_directory, const char* from, int to_directory, const char* to,
              unsigned flags) {
  count();
  if (flags != 0 && no_exchange) {
    errno = EINVAL;
    return -1;
  }
  const char* slash = strrchr(from, '/');
  if (kept_name != NULL && strcmp(slash == NULL ? from : slash + 1, kept_name) == 0) {
    errno = EBUSY;
    return -1;
  }
  return (int)syscall(SYS_renameat2, from_directory, from, to_directory, to, flags);
}

int rename(const char* from, const char* to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int directory, const char* name, int flags) {
  count();
  return (int)syscall(SYS_unlinkat, directory, name, flags);
}

int unlink(const char* path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char* path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int remove(const char* path) {
  if (unlink(path) == 0) return 0;
  return errno == EISDIR || errno == EPERM ? rmdir(path) : -1;
}

int mkdir(const char* path, mode_t mode) {
  count();
  return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int symlink(const char* target, const char* path) {
  count();
  return (int)syscall(SYS_symlinkat, target, AT_FDCWD, path);
}

int link(const char* from, const char* to) {
  count();
  return (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* What kill_at_call.c offers to a program that it is linked into. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* SIGKILL at the `number`th call from now on that changes a file; 0: never. */
void kill_at_call(long number);
/* A rename of what has this file name fails, as that of a mount point; NULL: of nothing. */
void refuse_rename_of(const char* name);
/* Whether renameat2() with flags fails. */
void refuse_exchange(int refuse);

#ifdef __cplusplus
}
#endif

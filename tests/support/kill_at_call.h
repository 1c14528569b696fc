/* What kill_at_call.c offers to a program that it is linked into. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* SIGKILL at the `number`th call from now on that changes a file; 0: never. */
void kill_at_call(long number);
/* Whether renameat2() with flags fails. */
void refuse_exchange(int refuse);

#ifdef __cplusplus
}
#endif

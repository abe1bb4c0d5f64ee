/* SPDX-License-Identifier: MIT */
#ifndef THREADS_H
#define THREADS_H

#include <stdbool.h>
#include <stdint.h>

typedef int64_t work(const void *entry);

/* The thread's id, or -errno; an idle one runs when nobody else wants to. */
int64_t start_thread(unsigned number, bool idle, work *run, const void *entry);

/* What the thread's work answered, after which its number is free, or -EINPROGRESS. */
int64_t join_thread(unsigned number, uint64_t milliseconds);

#endif

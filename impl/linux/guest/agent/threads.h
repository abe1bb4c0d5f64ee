/* SPDX-License-Identifier: MIT */
#ifndef THREADS_H
#define THREADS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int64_t work(const void *entry);

/* The thread's id, or -errno; an idle one runs when nobody else wants to. The entry is in the area, which was mapped. */
int64_t start_thread(unsigned number, bool idle, work *run, const void *entry, void *area, size_t size);

/* What the thread's work answered, after which its number is free and its area gone, or -EINPROGRESS. */
int64_t join_thread(unsigned number, uint64_t milliseconds);

#endif

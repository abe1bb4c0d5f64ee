// SPDX-License-Identifier: MIT
/*
 * Entries of a frame that are carried out in threads of their own, and may take as long as they like.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

enum { THREADS = 64, STACK = 1 << 16 };

static struct slot {
	pthread_t thread;
	work *run;
	const void *entry;
	void *area;
	size_t size;
	bool idle, used, done;
	pid_t id;
	int64_t value;
} slots[THREADS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *run_slot(void *data)
{
	struct slot *slot = data;
	int64_t value;

	if (slot->idle)
		sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ 0 });
	pthread_mutex_lock(&lock);
	slot->id = syscall(SYS_gettid);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	value = slot->run(slot->entry);
	pthread_mutex_lock(&lock);
	slot->value = value;
	slot->done = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	return NULL;
}

int64_t start_thread(unsigned number, bool idle, work *run, const void *entry, void *area, size_t size)
{
	struct slot *slot = &slots[number % THREADS];
	pthread_attr_t attributes;

	if (slot->used)
		return -EBUSY;
	*slot = (struct slot){ .run = run, .entry = entry, .area = area, .size = size, .idle = idle, .used = true };
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	if (pthread_create(&slot->thread, &attributes, run_slot, slot))
		return -EAGAIN;
	pthread_mutex_lock(&lock);
	while (!slot->id)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return slot->id;
}

int64_t join_thread(unsigned number, uint64_t milliseconds)
{
	struct slot *slot = &slots[number % THREADS];
	struct timespec until;
	bool done;

	if (!slot->used)
		return -ESRCH;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += milliseconds % 1000 * 1000000;
	until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&lock);
	while (!slot->done && !pthread_cond_timedwait(&changed, &lock, &until))
		;
	done = slot->done;
	pthread_mutex_unlock(&lock);
	if (!done)
		return -EINPROGRESS;
	pthread_join(slot->thread, NULL);
	munmap(slot->area, slot->size);
	slot->used = false;
	return slot->value;
}

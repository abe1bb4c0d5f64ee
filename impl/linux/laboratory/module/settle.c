// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Waits until all that was put off is done: callbacks behind grace periods, and the work that they queue; and for one
 * grace period.
 */
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/rcupdate_trace.h>
#include <linux/slab.h> /* kvfree_rcu_barrier(), in newer kernels */
#include <linux/workqueue.h>

#include "massattach.h"

MASSATTACH_IMPORT(synchronize_rcu_tasks_rude);

/* An image goes through two grace periods of tasks, a reference that is killed behind one of RCU, and a work item. */
#define ROUNDS 3

#ifdef MASSATTACH_PERCPU_WQ
#define EVENTS system_percpu_wq
#else
#define EVENTS system_wq
#endif

/* As a pointer, since the header warns of whoever flushes this queue. */
static void (*const flush)(struct workqueue_struct *queue) = __flush_workqueue;

#ifdef MASSATTACH_KVFREE_BARRIER
MASSATTACH_IMPORT(kvfree_rcu_barrier);
#endif

/* Words: a flavour, by its place in spec/operations.py. */
long massattach_grace_period(const struct massattach_command *command)
{
	static void (*const wait[])(void) = { synchronize_rcu, synchronize_rcu_tasks, NULL, synchronize_rcu_tasks_trace };
	u64 flavour = command->words[0];

	if (flavour >= ARRAY_SIZE(wait))
		return -EINVAL;
	if (wait[flavour])
		wait[flavour]();
	else
		MASSATTACH_IMPORTED(synchronize_rcu_tasks_rude)();
	return 0;
}

long massattach_settle(const struct massattach_command *command)
{
	int round;

	for (round = 0; round < ROUNDS; round++) {
		rcu_barrier_tasks_trace();
		rcu_barrier_tasks();
		rcu_barrier();
		flush(EVENTS);
	}
#ifdef MASSATTACH_KVFREE_BARRIER
	MASSATTACH_IMPORTED(kvfree_rcu_barrier)();
#endif
	return 0;
}

// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Tasks that stand at a chosen instruction of a call, and one that does while it patches text.
 *
 * points_SRCARCH.c stops the task there, and park_SRCARCH.S calls massattach_park_stay(), in which it spins, so that it may
 * be preempted and has not left in the eyes of RCU tasks, or sleeps.
 */
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/task.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <linux/wait_bit.h>

#include "massattach.h"
#include "park.h"

#define TASKS 4
/* After so long it is looked whether a task that is waited for has died. */
#define LOOK (HZ / 10)

enum state { RUNNING, PARKED, DONE };

/*
 * base: the stack pointer at the site of the task's own call. passed: the point that it stands at and will go through.
 * leader: the slot is for the first thread of its group that comes to a point, wherever it was called from; NULL if it is
 * for a call.
 */
struct park {
	struct task_struct *task, *leader;
	enum state state;
	bool sleeps, leaves;
	u64 at, base, passed;
	u64 points[MASSATTACH_POINTS];
	int depth;
};

static struct park parks[TASKS];
static DECLARE_WAIT_QUEUE_HEAD(moved);

static struct park *own(void)
{
	int i;

	for (i = 0; i < TASKS; i++)
		if (parks[i].task == current)
			return &parks[i];
	return NULL;
}

static bool wants(const struct park *park, u64 address)
{
	int i;

	for (i = 0; i < MASSATTACH_POINTS; i++)
		if (address && park->points[i] == address)
			return true;
	return false;
}

/* Called where a trap is handled. The task may end before anybody looks at it again. */
static struct park *adopt(u64 address)
{
	int i;

	for (i = 0; i < TASKS; i++)
		if (!parks[i].task && parks[i].leader == current->group_leader && wants(&parks[i], address)) {
			parks[i].task = get_task_struct(current);
			return &parks[i];
		}
	return NULL;
}

static void arm(struct park *park, const u64 *points, u32 count)
{
	memset(park->points, 0, sizeof(park->points));
	memcpy(park->points, points, sizeof(*points) * min_t(u32, count, MASSATTACH_POINTS));
	massattach_points_arm(park->points);
}

bool massattach_park_wants(u64 address)
{
	int i;

	for (i = 0; i < TASKS; i++)
		if (wants(&parks[i], address))
			return true;
	return false;
}

/*
 * An image keeps the stack pointer of its entry as the frame, once it has pushed the caller's; calls that are made in the
 * task's own are below it.
 */
bool massattach_park_stops(u64 address, u64 stack, u64 frame)
{
	struct park *park = own() ?: adopt(address);

	if (!park || !wants(park, address))
		return false;
	if (park->base && !park->leader && stack < park->base - 16 && (frame < park->base - 16 || frame > park->base))
		return false;
	if (park->passed == address) {
		park->passed = 0;
		return false;
	}
	if (!park->base)
		park->base = stack;
	park->at = address;
	return true;
}

/* Called by the stub; where the task goes on. */
u64 massattach_park_stay(void)
{
	struct park *park = own();

	park->depth = rcu_preempt_depth();
	WRITE_ONCE(park->leaves, false);
	WRITE_ONCE(park->state, PARKED);
	wake_up_all(&moved);
	if (park->sleeps)
		wait_var_event(&park->leaves, READ_ONCE(park->leaves));
	else
		while (!READ_ONCE(park->leaves))
			massattach_points_relax();
	return park->at;
}

/* One that is about to sleep may have lost the processor before, and RCU tasks waits for it until it does sleep. */
static bool falls_asleep(struct park *park)
{
	struct task_struct *task = READ_ONCE(park->task);

	return READ_ONCE(park->state) == PARKED && park->sleeps && task && READ_ONCE(task->on_rq);
}

/* One that the kernel has ended, such as for an oops, tells nobody. */
static bool has_died(struct park *park)
{
	struct task_struct *task = READ_ONCE(park->task);

	return task && READ_ONCE(task->flags) & PF_EXITING;
}

/* Only this task wakes: one that sleeps on is not to be on the run queue when a grace period of RCU tasks begins. */
static void leave(struct park *park)
{
	WRITE_ONCE(park->leaves, true);
	smp_mb(); /* wake_up_var() looks for sleepers behind the store */
	wake_up_var(&park->leaves);
}

static long stand_by(u64 slot, u64 milliseconds)
{
	static const u64 none[MASSATTACH_POINTS];
	struct park *park = &parks[slot];
	long left = msecs_to_jiffies(milliseconds);

	for (; left > 0 && !has_died(park); left -= LOOK)
		if (wait_event_timeout(moved, READ_ONCE(park->state) != RUNNING, LOOK))
			break;
	for (; left > 0 && falls_asleep(park); left--)
		schedule_timeout_uninterruptible(1);
	arm(park, none, MASSATTACH_POINTS);
	if (has_died(park))
		return -ESRCH;
	return left > 0 ? 0 : -ETIMEDOUT;
}

/* Words: slot, then as for massattach_call(). The writer is the task, until its call is over. */
long massattach_park_call(const struct massattach_command *command)
{
	struct massattach_command call = *command;
	struct park *park = &parks[command->words[0] % TASKS];
	long value;

	call.words += 1;
	call.count -= 1;
	park->task = get_task_struct(current);
	value = massattach_call(&call);
	park->task = NULL;
	put_task_struct(current);
	WRITE_ONCE(park->state, DONE);
	wake_up_all(&moved);
	return value;
}

/* Words: slot, address of the site: the next task in the slot stands there first. */
long massattach_park_begin(const struct massattach_command *command)
{
	struct park *park = &parks[command->words[0] % TASKS];

	if (park->task)
		return -EBUSY;
	memset(park, 0, sizeof(*park));
	arm(park, &command->words[1], 1);
	return 0;
}

/* Words: slot, milliseconds: waits until a task stands, asleep if it is to sleep, or is done. */
long massattach_park_wait(const struct massattach_command *command)
{
	return stand_by(command->words[0] % TASKS, command->words[1]);
}

/* Words: slot, milliseconds, whether it is to sleep there, addresses: the task goes on to one of them, or to its end. */
long massattach_park_step(const struct massattach_command *command)
{
	struct park *park = &parks[command->words[0] % TASKS];

	if (READ_ONCE(park->state) != PARKED)
		return -ESRCH;
	park->sleeps = command->words[2];
	arm(park, command->words + 3, command->count - 3);
	park->passed = wants(park, park->at) ? park->at : 0;
	WRITE_ONCE(park->state, RUNNING);
	leave(park);
	return stand_by(command->words[0] % TASKS, command->words[1]);
}

/*
 * Words: slot, addresses: of the threads of the writer's process the next one that comes to one of them sleeps there; one
 * that sleeps goes on to the next of them, or without them to its end. Nobody waits.
 */
long massattach_park_thread(const struct massattach_command *command)
{
	struct park *park = &parks[command->words[0] % TASKS];
	bool stands = READ_ONCE(park->state) == PARKED;

	if (!stands) {
		if (park->task)
			put_task_struct(park->task);
		memset(park, 0, sizeof(*park));
		park->leader = current->group_leader;
		park->sleeps = true;
	}
	arm(park, command->words + 1, command->count - 1);
	park->passed = wants(park, park->at) ? park->at : 0;
	WRITE_ONCE(park->state, RUNNING);
	leave(park);
	return 0;
}

/* Writes a record for each slot: where its task stands, its state, how deep it is in RCU, whether RCU tasks waits for it. */
long massattach_park_look(const struct massattach_command *command)
{
	u64 words[3];
	int i;

	for (i = 0; i < TASKS; i++) {
		struct task_struct *task = READ_ONCE(parks[i].task);

		words[0] = READ_ONCE(parks[i].state);
		words[1] = parks[i].depth;
		words[2] = task && READ_ONCE(task->rcu_tasks_holdout);
		massattach_record(MASSATTACH_PARK, i, parks[i].at, ARRAY_SIZE(words), words);
	}
	return 0;
}

// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Tasks that stand at a chosen instruction of a call.
 *
 * A debug register stops the task there; the handler sends it to massattach_park_stub(), in which it spins, so that it
 * may be preempted and has not left in the eyes of RCU tasks, or sleeps. cpu_dr7 stays 0: a text_poke() that saw it would
 * put the registers aside, and then restore what it knows of them, which is nothing.
 */
#include <linux/kdebug.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <asm/debugreg.h>

#include "massattach.h"

#define TASKS 4
#define POINTS 4

enum state { RUNNING, PARKED, DONE };

/* base: the stack pointer at the site of the task's own call. passed: the point that it stands at and will go through. */
struct park {
	struct task_struct *task;
	enum state state;
	bool sleeps, leaves;
	u64 at, base, passed;
	u64 points[POINTS];
	int depth;
};

static struct park parks[TASKS];
static DECLARE_WAIT_QUEUE_HEAD(moved);
static DECLARE_WAIT_QUEUE_HEAD(leave);

void massattach_park_stub(void);
asmlinkage u64 massattach_park_stay(void);

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

	for (i = 0; i < POINTS; i++)
		if (address && park->points[i] == address)
			return true;
	return false;
}

static void write_registers(void *data)
{
	const u64 *points = data;
	unsigned long enabled = 0;
	int i;

	for (i = 0; i < POINTS; i++)
		if (points[i])
			enabled |= 2UL << (2 * i); /* global, execution, one byte */
	set_debugreg(0UL, 7);
	set_debugreg((unsigned long)points[0], 0);
	set_debugreg((unsigned long)points[1], 1);
	set_debugreg((unsigned long)points[2], 2);
	set_debugreg((unsigned long)points[3], 3);
	set_debugreg(enabled, 7);
}

static void arm(struct park *park, const u64 *points, u32 count)
{
	memset(park->points, 0, sizeof(park->points));
	memcpy(park->points, points, sizeof(*points) * min_t(u32, count, POINTS));
	on_each_cpu(write_registers, park->points, 1);
}

/* Whether this is the task's own call, and not one that is made in it: an image keeps the stack pointer of its entry. */
static bool of_own_call(const struct park *park, const struct pt_regs *regs)
{
	if (!park->base)
		return true;
	return regs->sp >= park->base - 8 || (regs->bp >= park->base - 16 && regs->bp <= park->base);
}

static int debugged(struct notifier_block *block, unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;
	struct park *park;
	int i;

	if (event != DIE_DEBUG || user_mode(regs))
		return NOTIFY_DONE;
	for (i = 0; i < TASKS && !wants(&parks[i], regs->ip); i++)
		;
	if (i == TASKS)
		return NOTIFY_DONE;
	regs->flags |= X86_EFLAGS_RF;
	park = own();
	if (!park || !wants(park, regs->ip) || !of_own_call(park, regs) || !(regs->flags & X86_EFLAGS_IF))
		return NOTIFY_STOP;
	if (park->passed == regs->ip) {
		park->passed = 0;
		return NOTIFY_STOP;
	}
	if (!park->base)
		park->base = regs->sp;
	park->at = regs->ip;
	regs->ip = (unsigned long)massattach_park_stub;
	return NOTIFY_STOP;
}

/* Called by the stub; where the task goes on. */
asmlinkage u64 massattach_park_stay(void)
{
	struct park *park = own();

	park->depth = rcu_preempt_depth();
	WRITE_ONCE(park->leaves, false);
	WRITE_ONCE(park->state, PARKED);
	wake_up_all(&moved);
	if (park->sleeps)
		wait_event_idle(leave, READ_ONCE(park->leaves));
	else
		while (!READ_ONCE(park->leaves))
			cpu_relax();
	return park->at;
}

static long stand_by(u64 slot, u64 milliseconds)
{
	static const u64 none[POINTS];
	struct park *park = &parks[slot];
	long left = wait_event_timeout(moved, READ_ONCE(park->state) != RUNNING, msecs_to_jiffies(milliseconds));

	arm(park, none, POINTS);
	return left ? 0 : -ETIMEDOUT;
}

/* Words: slot, then as for massattach_call(). The writer is the task, until its call is over. */
long massattach_park_call(const struct massattach_command *command)
{
	struct massattach_command call = *command;
	struct park *park = &parks[command->words[0] % TASKS];
	long value;

	call.words += 1;
	call.count -= 1;
	park->task = current;
	value = massattach_call(&call);
	park->task = NULL;
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

/* Words: slot, milliseconds: waits until a task stands or is done. */
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
	WRITE_ONCE(park->leaves, true);
	wake_up_all(&leave);
	return stand_by(command->words[0] % TASKS, command->words[1]);
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

static struct notifier_block block = { .notifier_call = debugged, .priority = 0x7fffffff };

/* The kernel's own handler has the highest priority, too, and ends the chain: it has to come after ours. */
MASSATTACH_IMPORT(hw_breakpoint_exceptions_nb);

int massattach_park_init(void)
{
	struct notifier_block *theirs = (struct notifier_block *)address_of_hw_breakpoint_exceptions_nb;
	int error = unregister_die_notifier(theirs);

	if (!error)
		error = register_die_notifier(&block);
	if (!error)
		error = register_die_notifier(theirs);
	return error;
}

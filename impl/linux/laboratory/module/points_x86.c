// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Stops tasks by debug registers, and sends them to massattach_park_stub().
 *
 * cpu_dr7 stays 0: a text_poke() that saw it would put the registers aside, and then restore what it knows of them, which
 * is nothing.
 */
#include <linux/kdebug.h>
#include <linux/moduleparam.h>
#include <linux/ptrace.h>
#include <linux/smp.h>
#include <asm/debugreg.h>

#include "massattach.h"
#include "park.h"

static void write_registers(void *data)
{
	const u64 *points = data;
	unsigned long enabled = 0;
	int i;

	for (i = 0; i < MASSATTACH_POINTS; i++)
		if (points[i])
			enabled |= 2UL << (2 * i); /* global, execution, one byte */
	set_debugreg(0UL, 7);
	set_debugreg((unsigned long)points[0], 0);
	set_debugreg((unsigned long)points[1], 1);
	set_debugreg((unsigned long)points[2], 2);
	set_debugreg((unsigned long)points[3], 3);
	set_debugreg(enabled, 7);
}

void massattach_points_arm(const u64 *points)
{
	on_each_cpu(write_registers, (void *)points, 1);
}

/* An emulator that has nothing to do leaves its processor to those who wait for it. */
void massattach_points_relax(void)
{
	asm volatile("hlt");
}

static int debugged(struct notifier_block *block, unsigned long event, void *data)
{
	struct pt_regs *regs = ((struct die_args *)data)->regs;

	if (event != DIE_DEBUG || user_mode(regs) || !massattach_park_wants(regs->ip))
		return NOTIFY_DONE;
	regs->flags |= X86_EFLAGS_RF;
	if (regs->flags & X86_EFLAGS_IF && massattach_park_stops(regs->ip, regs->sp, regs->bp))
		regs->ip = (unsigned long)massattach_park_stub;
	return NOTIFY_STOP;
}

static struct notifier_block block = { .notifier_call = debugged, .priority = 0x7fffffff };

/* The kernel's own handler has the highest priority, too, and ends the chain: it has to come after ours. */
MASSATTACH_IMPORT(hw_breakpoint_exceptions_nb);

int massattach_points_init(void)
{
	struct notifier_block *theirs = (struct notifier_block *)address_of_hw_breakpoint_exceptions_nb;
	int error = unregister_die_notifier(theirs);

	if (!error)
		error = register_die_notifier(&block);
	if (!error)
		error = register_die_notifier(theirs);
	return error;
}

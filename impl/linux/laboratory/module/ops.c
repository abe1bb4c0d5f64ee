// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The ftrace_ops that seeds declare, by slot: their filters, and their registration as plain ops.
 */
#include <linux/ftrace.h>
#include <linux/slab.h>

#include "massattach.h"

enum { REMOVE = 1, RESET = 2 };

static const unsigned long flags_of_bits[] = {
	FTRACE_OPS_FL_SAVE_REGS, FTRACE_OPS_FL_IPMODIFY, FTRACE_OPS_FL_RECURSION, FTRACE_OPS_FL_RCU, FTRACE_OPS_FL_PERMANENT,
};

/* Behind the bits of flags_of_bits. */
#define DYNAMIC (1UL << ARRAY_SIZE(flags_of_bits))

struct slot {
	struct ftrace_ops ops;
	u32 number;
	bool dynamic;
};

static struct slot *slots[MASSATTACH_SLOTS];

struct ftrace_ops *massattach_ops(u64 slot)
{
	return slot < MASSATTACH_SLOTS && slots[slot] ? &slots[slot]->ops : NULL;
}

/*
 * The kernel takes every ops outside of its own data for a dynamic one, and waits for grace periods when it goes. One
 * that was not declared dynamic goes as the kernel's own do, which is safe as its memory stays, too.
 */
struct ftrace_ops *massattach_ops_leaving(u64 slot)
{
	struct ftrace_ops *ops = massattach_ops(slot);

	if (ops && !slots[slot]->dynamic)
		ops->flags &= ~FTRACE_OPS_FL_DYNAMIC;
	return ops;
}

/*
 * The hashes of a freed ops dangle, and a later use frees them again. So its memory is left alone for good, and the
 * slot can be declared anew.
 */
void massattach_ops_forget(u64 slot)
{
	slots[slot] = NULL;
}

/* The callbacks of stubs_SRCARCH.S, one for each slot, which all go on here. */
extern const unsigned long massattach_callbacks[MASSATTACH_SLOTS];
void massattach_ops_ran(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *fregs);

/* Needs no protection against recursion: nothing that it calls is traced. */
void massattach_ops_ran(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	massattach_record(MASSATTACH_OPS, container_of(ops, struct slot, ops)->number, ip, 0, NULL);
}

long massattach_ops_declare(const struct massattach_command *command)
{
	u64 number = command->words[0], bits = command->words[1];
	struct slot *slot;
	size_t bit;
	long error;

	if (number >= MASSATTACH_SLOTS)
		return -EINVAL;
	if (slots[number])
		return -EEXIST;
	slot = kzalloc(sizeof(*slot), GFP_KERNEL);
	if (!slot)
		return -ENOMEM;
	slot->number = number;
	slot->dynamic = !!(bits & DYNAMIC);
	for (bit = 0; bit < ARRAY_SIZE(flags_of_bits); bit++)
		if (bits & (1UL << bit))
			slot->ops.flags |= flags_of_bits[bit];
	/*
	 * Linux 6.1 follows func_hash of an ops that was never initialised in several calls, and oopses. Once ftrace has
	 * died this is all that the call does.
	 */
	error = ftrace_set_filter(&slot->ops, NULL, 0, 1);
	if (error && error != -ENODEV) {
		kfree(slot);
		return error;
	}
	slots[number] = slot;
	return 0;
}

long massattach_ops_filter_ip(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);
	u64 how = command->words[1];

	return ops ? ftrace_set_filter_ip(ops, command->words[2], !!(how & REMOVE), !!(how & RESET)) : -EBADF;
}

long massattach_ops_filter_ips(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);
	u64 how = command->words[1];
	/* The call takes a plain pointer but only reads. */
	unsigned long *ips = (unsigned long *)&command->words[2];

	return ops ? ftrace_set_filter_ips(ops, ips, command->count - 2, !!(how & REMOVE), !!(how & RESET)) : -EBADF;
}

long massattach_ops_filter(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);

	return ops ? ftrace_set_filter(ops, command->text, command->length, !!(command->words[1] & RESET)) : -EBADF;
}

long massattach_ops_notrace(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);

	return ops ? ftrace_set_notrace(ops, command->text, command->length, !!(command->words[1] & RESET)) : -EBADF;
}

long massattach_ops_free(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);

	if (!ops)
		return -EBADF;
	ftrace_free_filter(ops);
	/* Where an enabled ops is left alone, with a warning, it goes on calling us. */
	if (!(ops->flags & FTRACE_OPS_FL_ENABLED))
		massattach_ops_forget(command->words[0]);
	return 0;
}

long massattach_ops_register(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);
	ftrace_func_t before;
	long error;

	if (!ops)
		return -EBADF;
	/* Only here, and only if it succeeds: a direct registration demands that func is not set. */
	before = ops->func;
	ops->func = (ftrace_func_t)massattach_callbacks[command->words[0]];
	error = register_ftrace_function(ops);
	if (error)
		ops->func = before;
	return error;
}

long massattach_ops_unregister(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops_leaving(command->words[0]);

	return ops ? unregister_ftrace_function(ops) : -EBADF;
}

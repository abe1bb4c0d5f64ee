// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Direct calls: the single, the multi and the hash API, as far as the kernel's headers have them.
 */
#include <linux/ftrace.h>

#include "massattach.h"

/* The stubs of stubs_SRCARCH.S, which calls this for each of their runs. */
extern const unsigned long massattach_stubs[MASSATTACH_STUBS];
void massattach_stub_ran(u32 number, unsigned long return_address);

void massattach_stub_ran(u32 number, unsigned long return_address)
{
	massattach_record(MASSATTACH_DIRECT, number, return_address - MCOUNT_INSN_SIZE, 0, NULL);
}

unsigned long massattach_stub(u64 number)
{
	return number < MASSATTACH_STUBS ? massattach_stubs[number] : 0;
}

#ifdef MASSATTACH_SINGLE_DIRECT
long massattach_direct_register(const struct massattach_command *command)
{
	return register_ftrace_direct(command->words[0], massattach_stub(command->words[1]));
}

long massattach_direct_unregister(const struct massattach_command *command)
{
	return unregister_ftrace_direct(command->words[0], massattach_stub(command->words[1]));
}

long massattach_direct_modify(const struct massattach_command *command)
{
	unsigned long old = massattach_stub(command->words[1]);

	return modify_ftrace_direct(command->words[0], old, massattach_stub(command->words[2]));
}
#else
long massattach_direct_register(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}

long massattach_direct_unregister(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}

long massattach_direct_modify(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}
#endif

#ifndef MASSATTACH_DIRECT_MULTI
#define register_ftrace_direct_multi register_ftrace_direct
#define unregister_ftrace_direct_multi unregister_ftrace_direct
#define modify_ftrace_direct_multi modify_ftrace_direct
#endif

long massattach_multi_register(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);

	return ops ? register_ftrace_direct_multi(ops, massattach_stub(command->words[1])) : -EBADF;
}

long massattach_multi_unregister(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops_leaving(command->words[0]);
	unsigned long stub = massattach_stub(command->words[1]);
	long error;

	if (!ops)
		return -EBADF;
#ifdef MASSATTACH_FREE_FILTERS
	error = unregister_ftrace_direct_multi(ops, stub, command->words[2]);
	if (command->words[2] && error != -EINVAL)
		massattach_ops_forget(command->words[0]);
#else
	error = unregister_ftrace_direct_multi(ops, stub);
#endif
	return error;
}

long massattach_multi_modify(const struct massattach_command *command)
{
	struct ftrace_ops *ops = massattach_ops(command->words[0]);

	return ops ? modify_ftrace_direct_multi(ops, massattach_stub(command->words[1])) : -EBADF;
}

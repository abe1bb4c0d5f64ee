// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Calls of traceable functions: for the host, and through a kfunc for programs.
 */
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/bpf.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/string.h>

#include "massattach.h"

#ifndef __bpf_kfunc
#define __bpf_kfunc __used noinline
#endif
#ifndef BTF_SET8_KFUNCS
#define BTF_SET8_KFUNCS 0
#endif

/* Behind the words that a call passes on the stack: what reads further finds no zero, which would do no harm. */
#define BEYOND 0x5a5a5a5a5a5a5a5aull

/* How often the task has entered what it must leave again: preemption and migration off, sections of RCU. */
struct entered {
	int preemption, migration, rcu, rcu_tasks_trace;
};

static struct entered count_entered(void)
{
	struct entered counts = { .preemption = preempt_count(), .rcu = rcu_preempt_depth() };

#ifdef CONFIG_SMP
	counts.migration = current->migration_disabled;
#endif
#ifdef CONFIG_TASKS_TRACE_RCU
	counts.rcu_tasks_trace = current->trc_reader_nesting;
#endif
	return counts;
}

/* Calls; the kernel warns if the call comes back without a register that C preserves, or from less or more than it entered. */
static u64 call_function(struct massattach_call *call)
{
	struct entered before = count_entered(), after;
	u64 value = massattach_enter(call);

	after = count_entered();
	WARN(call->lost, "a call came back with other registers than C preserves\n");
	WARN(memcmp(&before, &after, sizeof(before)),
	     "a call came back with preemption %+d, migration %+d, RCU %+d, RCU tasks trace %+d\n",
	     after.preemption - before.preemption, after.migration - before.migration, after.rcu - before.rcu,
	     after.rcu_tasks_trace - before.rcu_tasks_trace);
	return value;
}

/* Words: the function's address, the registers, the words on the stack. */
long massattach_call(const struct massattach_command *command)
{
	struct massattach_call call = { .address = command->words[0] };
	u32 stack = command->count - 1 - MASSATTACH_REGISTERS;
	u64 value;

	if (stack > MASSATTACH_STACK)
		return -E2BIG;
	memset64(call.stack, BEYOND, MASSATTACH_STACK);
	memcpy(call.registers, &command->words[1], sizeof(call.registers));
	memcpy(call.stack, &command->words[1 + MASSATTACH_REGISTERS], 8 * stack);
	value = call_function(&call);
	massattach_record(MASSATTACH_VALUE, 0, call.address, 1, &value);
	return 0;
}

/* The task in whose kfunc call we are: a program that runs inside such a call makes none itself. */
static struct task_struct *nesting;

__bpf_kfunc u64 massattach_nested(u64 address);

/* Calls a function with zero in every slot. Returns what it returned, 0 inside such a call. */
__bpf_kfunc u64 massattach_nested(u64 address)
{
	struct massattach_call call = { .address = address };
	u64 value;

	if (READ_ONCE(nesting) == current)
		return 0;
	WRITE_ONCE(nesting, current);
	massattach_begin((const void *)address);
	value = massattach_end(call_function(&call));
	WRITE_ONCE(nesting, NULL);
	return value;
}

/* The id is filled in after the link, from which BTF is made. */
static struct btf_id_set8 ids __used __section(".massattach_kfunc_ids") = {
	.cnt = 1,
	.flags = BTF_SET8_KFUNCS,
	.pairs = { { 0, 0 } },
};

static const struct btf_kfunc_id_set kfuncs = {
	.owner = THIS_MODULE,
	.set = &ids,
};

int massattach_calls_init(void)
{
	return register_btf_kfunc_id_set(BPF_PROG_TYPE_TRACING, &kfuncs);
}

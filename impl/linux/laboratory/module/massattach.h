/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What the parts of massattach.ko share, and what modules of the world use of it.
 */
#ifndef MASSATTACH_H
#define MASSATTACH_H

#include <linux/types.h>

#include "sizes.h"

/* What the kernel does not export to modules: whoever loads this module gives the addresses as parameters. */
#define MASSATTACH_IMPORT(name)                 \
	static unsigned long address_of_##name; \
	module_param_named(name, address_of_##name, ulong, 0)
#define MASSATTACH_IMPORTED(name) ((typeof(name) *)address_of_##name)

struct ftrace_ops;

/* Kinds of records; BEGIN announces a call that a body or a program makes, VALUE ends each call, PARK tells of a task. */
enum massattach_kind {
	MASSATTACH_BODY = 1,
	MASSATTACH_PATCHED,
	MASSATTACH_OPS,
	MASSATTACH_DIRECT,
	MASSATTACH_VALUE,
	MASSATTACH_BEGIN,
	MASSATTACH_PARK,
};

extern u64 massattach_reached;

/* What one write(2) to the control file holds: a verb, `count` words, a text of `length` bytes; behind it is a NUL. */
struct massattach_command {
	const u64 *words;
	u32 count;
	char *text;
	size_t length;
};

/*
 * Registers and stack of a call, and the function's address: the layout that massattach_enter() in stubs_SRCARCH.S reads.
 * lost: not 0 if the call has come back without a register that C preserves.
 */
struct massattach_call {
	u64 registers[MASSATTACH_REGISTERS];
	u64 stack[MASSATTACH_STACK];
	u64 address;
	u64 lost;
};

u64 massattach_enter(struct massattach_call *call);

void massattach_record(u32 kind, u32 number, u64 ip, u32 count, const u64 *words);
void massattach_body(u32 number, bool patched, u32 count, const u64 *words);
void massattach_begin(const void *function);
u64 massattach_end(u64 value);
int massattach_log_init(void);
ssize_t massattach_log_read(char __user *buffer, size_t size, loff_t *position);
void massattach_log_clear(void);

struct ftrace_ops *massattach_ops(u64 slot);
struct ftrace_ops *massattach_ops_leaving(u64 slot);
void massattach_ops_forget(u64 slot);
unsigned long massattach_stub(u64 number);

typedef long massattach_verb(const struct massattach_command *command);

massattach_verb massattach_ops_declare, massattach_ops_filter_ip, massattach_ops_filter_ips, massattach_ops_filter,
	massattach_ops_notrace, massattach_ops_free, massattach_ops_register, massattach_ops_unregister;
massattach_verb massattach_direct_register, massattach_direct_unregister, massattach_direct_modify;
massattach_verb massattach_multi_register, massattach_multi_unregister, massattach_multi_modify;
massattach_verb massattach_hash_add, massattach_hash_del, massattach_hash_mod;
massattach_verb massattach_livepatch, massattach_unlivepatch;
massattach_verb massattach_call, massattach_hold, massattach_settle;
massattach_verb massattach_park_begin, massattach_park_call, massattach_park_step, massattach_park_wait,
	massattach_park_look, massattach_park_thread, massattach_grace_period;

int massattach_livepatch_init(void);
int massattach_calls_init(void);

/* In the generated functions.c: tells the kernel which functions fmod_ret and sleepable programs may attach to. */
int massattach_functions_init(void);

#endif

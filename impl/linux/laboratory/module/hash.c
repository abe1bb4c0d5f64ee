// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The hash API of direct calls, where the kernel's headers have it.
 */
#include <linux/ftrace.h>
#include <linux/moduleparam.h>

#include "massattach.h"

#ifdef MASSATTACH_HASH_DIRECT

#define HASH_BITS 10

struct ftrace_func_entry *ftrace_lookup_ip(struct ftrace_hash *hash, unsigned long ip);

MASSATTACH_IMPORT(ftrace_location);
MASSATTACH_IMPORT(ftrace_lookup_ip);
MASSATTACH_IMPORT(alloc_ftrace_hash);
MASSATTACH_IMPORT(free_ftrace_hash);
MASSATTACH_IMPORT(add_ftrace_hash_entry_direct);
MASSATTACH_IMPORT(update_ftrace_direct_add);
MASSATTACH_IMPORT(update_ftrace_direct_del);
MASSATTACH_IMPORT(update_ftrace_direct_mod);

static bool imported(void)
{
	return address_of_ftrace_location && address_of_ftrace_lookup_ip && address_of_alloc_ftrace_hash &&
	       address_of_free_ftrace_hash && address_of_add_ftrace_hash_entry_direct &&
	       address_of_update_ftrace_direct_add && address_of_update_ftrace_direct_del &&
	       address_of_update_ftrace_direct_mod;
}

static long add_entry(struct ftrace_hash *hash, u64 address, u64 stub)
{
	unsigned long ip = MASSATTACH_IMPORTED(ftrace_location)(address);

	if (!ip || MASSATTACH_IMPORTED(ftrace_lookup_ip)(hash, ip))
		return -EINVAL;
	return MASSATTACH_IMPORTED(add_ftrace_hash_entry_direct)(hash, ip, massattach_stub(stub)) ? 0 : -ENOMEM;
}

/* The pairs of address and stub behind the slot, as the hash that the calls take. */
static struct ftrace_hash *entries_of(const struct massattach_command *command)
{
	struct ftrace_hash *hash = MASSATTACH_IMPORTED(alloc_ftrace_hash)(HASH_BITS);
	long error = 0;
	u32 at;

	if (!hash)
		return ERR_PTR(-ENOMEM);
	for (at = 1; at + 1 < command->count && !error; at += 2)
		error = add_entry(hash, command->words[at], command->words[at + 1]);
	if (!error)
		return hash;
	MASSATTACH_IMPORTED(free_ftrace_hash)(hash);
	return ERR_PTR(error);
}

typedef int update(struct ftrace_ops *ops, struct ftrace_hash *hash);

static long updated(const struct massattach_command *command, struct ftrace_ops *ops, update *call)
{
	struct ftrace_hash *hash;
	long error;

	if (!ops)
		return -EBADF;
	if (!imported())
		return -EOPNOTSUPP;
	hash = entries_of(command);
	if (IS_ERR(hash))
		return PTR_ERR(hash);
	error = call(ops, hash);
	MASSATTACH_IMPORTED(free_ftrace_hash)(hash);
	return error;
}

static int mod(struct ftrace_ops *ops, struct ftrace_hash *hash)
{
	return MASSATTACH_IMPORTED(update_ftrace_direct_mod)(ops, hash, true);
}

long massattach_hash_add(const struct massattach_command *command)
{
	return updated(command, massattach_ops(command->words[0]), MASSATTACH_IMPORTED(update_ftrace_direct_add));
}

long massattach_hash_del(const struct massattach_command *command)
{
	return updated(command, massattach_ops_leaving(command->words[0]), MASSATTACH_IMPORTED(update_ftrace_direct_del));
}

long massattach_hash_mod(const struct massattach_command *command)
{
	return updated(command, massattach_ops(command->words[0]), mod);
}

#else

long massattach_hash_add(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}

long massattach_hash_del(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}

long massattach_hash_mod(const struct massattach_command *command)
{
	return -EOPNOTSUPP;
}

#endif

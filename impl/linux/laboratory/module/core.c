// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * /proc/massattach: each write is one command and returns what the kernel's call returned; reading gives the log.
 *
 * There is no module_exit, so that the module stays: ftrace holds pointers into it.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "massattach.h"
#include "park.h"

#define LONGEST (4UL << 20)

/* Set by code that the host puts in place of functions that are to fail: impl/linux/injection.py. */
u64 massattach_reached;

static long clear(const struct massattach_command *command)
{
	massattach_log_clear();
	return 0;
}

static long warn(const struct massattach_command *command)
{
	WARN(1, "massattach: a warning was asked for\n");
	return 0;
}

static long oops(const struct massattach_command *command)
{
	return READ_ONCE(*(long *)8);
}

/* A verb is a place in this table; `least` is the number of words without which it cannot run. `beside`: others go on. */
static const struct {
	massattach_verb *run;
	u32 least;
	bool beside;
} verbs[] = {
	{ clear, 0, true },
	{ warn, 0 },
	{ oops, 0 },
	{ massattach_call, 1 + MASSATTACH_REGISTERS, true },
	{ massattach_ops_declare, 2 },
	{ massattach_ops_filter_ip, 3 },
	{ massattach_ops_filter_ips, 2 },
	{ massattach_ops_filter, 2 },
	{ massattach_ops_notrace, 2 },
	{ massattach_ops_free, 1 },
	{ massattach_ops_register, 1 },
	{ massattach_ops_unregister, 1 },
	{ massattach_direct_register, 2 },
	{ massattach_direct_unregister, 2 },
	{ massattach_direct_modify, 3 },
	{ massattach_multi_register, 2 },
	{ massattach_multi_unregister, 3 },
	{ massattach_multi_modify, 2 },
	{ massattach_hash_add, 1 },
	{ massattach_hash_del, 1 },
	{ massattach_hash_mod, 1 },
	{ massattach_livepatch, 2 },
	{ massattach_unlivepatch, 1 },
	{ massattach_hold, 2 },
	{ massattach_settle, 0 },
	{ massattach_park_begin, 2, true },
	{ massattach_park_call, 2 + MASSATTACH_REGISTERS, true },
	{ massattach_park_step, 3, true },
	{ massattach_park_wait, 2, true },
	{ massattach_park_look, 0, true },
	{ massattach_grace_period, 1, true },
	{ massattach_park_thread, 1, true },
};

struct header {
	u32 verb;
	u32 count;
};

static DEFINE_MUTEX(one_at_a_time);

static long run(struct header *header, size_t size)
{
	struct massattach_command command = { .words = (u64 *)(header + 1), .count = header->count };
	size_t head = sizeof(*header) + 8UL * header->count;
	long value;

	if (header->verb >= ARRAY_SIZE(verbs) || head > size || header->count < verbs[header->verb].least)
		return -EINVAL;
	command.text = (char *)header + head;
	command.length = size - head;
	if (verbs[header->verb].beside)
		return verbs[header->verb].run(&command);
	mutex_lock(&one_at_a_time);
	value = verbs[header->verb].run(&command);
	mutex_unlock(&one_at_a_time);
	return value;
}

static ssize_t proc_write(struct file *file, const char __user *buffer, size_t size, loff_t *position)
{
	struct header *header;
	long value;

	if (size < sizeof(*header) || size > LONGEST)
		return -EINVAL;
	header = kvzalloc(size + 1, GFP_KERNEL);
	if (!header)
		return -ENOMEM;
	value = copy_from_user(header, buffer, size) ? -EFAULT : run(header, size);
	kvfree(header);
	return value < 0 ? value : size;
}

static ssize_t proc_read(struct file *file, char __user *buffer, size_t size, loff_t *position)
{
	return massattach_log_read(buffer, size, position);
}

static const struct proc_ops operations = {
	.proc_read = proc_read,
	.proc_write = proc_write,
	.proc_lseek = default_llseek,
};

static int __init massattach_init(void)
{
	int error = massattach_log_init();

	if (!error)
		error = massattach_livepatch_init();
	if (!error)
		error = massattach_calls_init();
	if (!error)
		error = massattach_points_init();
	if (!error)
		error = massattach_functions_init();
	if (!error && !proc_create("massattach", 0600, NULL, &operations))
		error = -ENOMEM;
	return error;
}

module_init(massattach_init);
MODULE_DESCRIPTION("Traceable functions, and ftrace's interfaces on demand");
MODULE_LICENSE("Dual MIT/GPL");

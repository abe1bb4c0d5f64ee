// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Livepatches: for each function an IPMODIFY user of its own, which sends callers to the patched twin.
 */
#include <linux/ftrace.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "massattach.h"

struct livepatch {
	struct ftrace_ops ops;
	struct list_head others;
	unsigned long address;
	unsigned long patched;
};

static LIST_HEAD(livepatches);

/* Needs no protection against recursion: it calls nothing. */
static void massattach_redirect(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	unsigned long patched = container_of(ops, struct livepatch, ops)->patched;

#ifdef ftrace_regs_set_instruction_pointer
	ftrace_regs_set_instruction_pointer(fregs, patched);
#else
	ftrace_instruction_pointer_set(fregs, patched);
#endif
}

static struct livepatch *find(unsigned long address)
{
	struct livepatch *livepatch;

	list_for_each_entry(livepatch, &livepatches, others)
		if (livepatch->address == address)
			return livepatch;
	return NULL;
}

static long apply(struct livepatch *livepatch)
{
	long error = ftrace_set_filter_ip(&livepatch->ops, livepatch->address, 0, 0);

	if (error)
		return error;
	error = register_ftrace_function(&livepatch->ops);
	if (error)
		ftrace_free_filter(&livepatch->ops);
	return error;
}

long massattach_livepatch(const struct massattach_command *command)
{
	struct livepatch *livepatch;
	long error;

	if (find(command->words[0]))
		return -EBUSY;
	livepatch = kzalloc(sizeof(*livepatch), GFP_KERNEL);
	if (!livepatch)
		return -ENOMEM;
	livepatch->address = command->words[0];
	livepatch->patched = command->words[1];
	livepatch->ops.func = massattach_redirect;
	livepatch->ops.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT;
	error = apply(livepatch);
	if (error)
		kfree(livepatch);
	else
		list_add(&livepatch->others, &livepatches);
	return error;
}

/* Taking the address from the filter, as klp_unpatch_func() does, may lack memory, and then the filter is lost. */
static long revert(struct livepatch *livepatch)
{
	long error = unregister_ftrace_function(&livepatch->ops);

	if (error)
		return error;
	ftrace_free_filter(&livepatch->ops);
	list_del(&livepatch->others);
	kfree(livepatch);
	return 0;
}

long massattach_unlivepatch(const struct massattach_command *command)
{
	struct livepatch *livepatch = find(command->words[0]);

	return livepatch ? revert(livepatch) : -EINVAL;
}

/* Livepatched functions of a module are unpatched before it goes, as klp_module_going() does it. */
static int module_event(struct notifier_block *block, unsigned long state, void *data)
{
	struct livepatch *livepatch, *next;

	if (state != MODULE_STATE_GOING)
		return NOTIFY_DONE;
	list_for_each_entry_safe(livepatch, next, &livepatches, others)
		if (within_module(livepatch->address, data))
			revert(livepatch);
	return NOTIFY_OK;
}

static struct notifier_block notifier = { .notifier_call = module_event };

int massattach_livepatch_init(void)
{
	return register_module_notifier(&notifier);
}

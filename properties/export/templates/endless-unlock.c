// SPDX-License-Identifier: MIT
/*
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
 *
 * A program is attached to rcu_read_unlock_special. Two threads look files up, in sections of RCU that are preempted or that the
 * tick finds too long, while this one waits for grace periods. Each such section ends in the function.
 *
 * Build: gcc -Wall -Wextra -pthread -o {{ number }} {{ number }}.c.
 * Run it as root in a virtual machine: a kernel that has the defect runs over the end of a stack, and this program never ends.
 * Exit status: 0 the kernel has it not; 1 its log says that something is wrong; 4 it lacks what is needed.
 */
{% include "alone-head.c" %}
#include <linux/membarrier.h>

static const struct place unlock = { BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, "rcu_read_unlock_special" };

enum { ROUNDS = 200 };

static volatile bool over;

/* Path walks are sections of RCU. */
static void *look_up(void *nothing)
{
	while (!over)
		(void)access("/proc/self/task", F_OK);
	return nothing;
}

int main(void)
{
	const struct bpf_insn nothing[] = {
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	pthread_t threads[2];
	struct attached program;

	setvbuf(stdout, NULL, _IONBF, 0);
	open_log();
	begin(1, "a program is attached to what __rcu_read_unlock() calls");
	program = attach(nothing, COUNT(nothing), &unlock, 0);
	printf("attached\n");
	for (unsigned each = 0; each < COUNT(threads); each++)
		if (pthread_create(&threads[each], NULL, look_up, NULL))
			cannot_run("There is no second thread.");
	for (unsigned round = 0; round < ROUNDS; round++)
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
			cannot_run("The kernel has no membarrier: %s.", strerror(errno));
	over = true;
	for (unsigned each = 0; each < COUNT(threads); each++)
		pthread_join(threads[each], NULL);
	close(program.link);
	compare("the kernel's log", "", look_for_warning());
	return AGREES;
}

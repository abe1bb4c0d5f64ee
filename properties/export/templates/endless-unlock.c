// SPDX-License-Identifier: MIT
/*
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
 *
 * A program is attached to rcu_read_unlock_special. More threads than there are processors walk a path so long that most of their
 * time is one section of RCU, and are preempted in it, while this one waits for grace periods. Such a section ends in the function.
 *
 * Build: gcc -Wall -Wextra -pthread -o {{ number }} {{ number }}.c.
 * Run it as root in a virtual machine: a kernel that has the defect runs over the end of a stack, and this program never ends.
 * Exit status: 0 the kernel has it not; 1 its log says that something is wrong; 4 it lacks what is needed.
 */
{% include "alone-head.c" %}
#include <linux/membarrier.h>

static const struct place unlock = { BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, "rcu_read_unlock_special" };

enum { SECONDS = 10, THREADS = 8, TURNS = 500 };

static volatile bool over;

/* Walks a path there and back, again and again: all of it is one section of RCU. */
static void *look_up(void *nothing)
{
	static const char turn[] = "/tmp/..";
	char path[TURNS * (sizeof(turn) - 1) + 1] = "";

	for (unsigned each = 0; each < TURNS; each++)
		memcpy(path + each * (sizeof(turn) - 1), turn, sizeof(turn));
	while (!over)
		if (access(path, F_OK))
			cannot_run("There is no way to %s: %s.", path, strerror(errno));
	return nothing;
}

int main(void)
{
	const struct bpf_insn nothing[] = {
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	time_t end = time(NULL) + SECONDS;
	pthread_t threads[THREADS];
	struct attached program;

	setvbuf(stdout, NULL, _IONBF, 0);
	open_log();
	begin(1, "a program is attached to what __rcu_read_unlock() calls");
	program = attach(nothing, COUNT(nothing), &unlock, 0);
	printf("attached\n");
	for (unsigned each = 0; each < COUNT(threads); each++)
		if (pthread_create(&threads[each], NULL, look_up, NULL))
			cannot_run("There are fewer threads than %d.", THREADS);
	while (time(NULL) < end)
		if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0))
			cannot_run("The kernel has no membarrier: %s.", strerror(errno));
	over = true;
	for (unsigned each = 0; each < COUNT(threads); each++)
		pthread_join(threads[each], NULL);
	close(program.link);
	compare("the kernel's log", "", look_for_warning());
	return AGREES;
}

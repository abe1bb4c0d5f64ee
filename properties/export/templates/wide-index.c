// SPDX-License-Identifier: MIT
/*
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
 *
 * Build: gcc -Wall -Wextra -o {{ number }} {{ number }}.c
 * Run it as root in a virtual machine: a kernel that has the defect panics, or goes on with an oops, and then this program
 * may never end.
 * Exit status: 0 the kernel has it not; 1 its log says that something is wrong; 4 it lacks what is needed.
 */
{% include "alone-head.c" %}

static const struct place fentry = { BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, "bpf_fentry_test1" };

/* bpf_get_func_arg() of a fentry program, with an index of 64 bits in r2. */
static void ask(uint64_t index)
{
	const struct bpf_insn code[] = {
		{ BPF_LD | BPF_DW | BPF_IMM, 2, 0, 0, (int32_t)index },
		{ 0, 0, 0, 0, (int32_t)(index >> 32) },
		{ BPF_ALU64 | BPF_MOV | BPF_X, 3, 10, 0, 0 },
		{ BPF_ALU64 | BPF_ADD | BPF_K, 3, 0, 0, -8 },
		{ BPF_ST | BPF_MEM | BPF_DW, 10, 0, -8, 0 },
		{ BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_get_func_arg },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	struct attached attached = attach(code, COUNT(code), &fentry, 0);

	printf("bpf_get_func_arg() of argument %#" PRIx64 "\n", index);
	outcome(test_run(attached.program), "0");
	close(attached.link);
	close(attached.program);
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	open_log();
	begin(1, "arguments that are there, and that are not");
	ask(0);
	ask(7);
	begin(2, "an index whose low 32 bits are an argument's");
	ask(1ull << 32);
	return AGREES;
}

/* Programs on one of the kernel's own functions, which a system call calls. */

PART long bpf(int command, const void *attr, unsigned size)
{
	long value = syscall(SYS_bpf, command, attr, size);

	return value < 0 ? -errno : value;
}

/* Loads a program for a function of the kernel, and attaches it: the descriptors of both. */
struct attached {
	int program, link;
};

PART struct attached attach(const struct bpf_insn *code, unsigned count, const struct place *place, unsigned flags)
{
	struct attached made;
	union bpf_attr attr = {
		.prog_type = place->program_type,
		.insns = (uint64_t)code,
		.insn_cnt = count,
		.license = (uint64_t)"GPL",
		.prog_flags = flags,
		.expected_attach_type = place->attach_type,
	};

	read_vmlinux_btf();
	attr.attach_btf_id = walk_btf(&vmlinux_btf, place->function);
	if (!attr.attach_btf_id)
		cannot_run("The kernel's BTF does not name %s.", place->function);
	made.program = bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
	if (made.program < 0)
		cannot_run("The kernel does not load the program: %s.", spell_error(made.program));
	attr = (union bpf_attr){ 0 };
	attr.raw_tracepoint.prog_fd = made.program;
	made.link = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, sizeof(attr));
	if (made.link < 0)
		cannot_run("The kernel does not attach the program: %s.", spell_error(made.link));
	return made;
}

/* BPF_PROG_TEST_RUN of a fentry program: the kernel calls bpf_fentry_test1 and its successors. */
PART long test_run(int program)
{
	union bpf_attr attr = { .test = { .prog_fd = program } };

	return bpf(BPF_PROG_TEST_RUN, &attr, sizeof(attr));
}

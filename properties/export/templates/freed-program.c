// SPDX-License-Identifier: MIT
/*
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
 *
 * A program, the victim, is attached; then a sleepable one, which stands before it in the image, and which waits for a page of
 * user memory that userfaultfd(2) keeps back. Meanwhile the victim's link and the victim are closed.
 *
 * Build: gcc -Wall -Wextra -pthread -o {{ number }} {{ number }}.c. Its argument `lsm` takes bpf_lsm_syslog, which can sleep, in the
 * place of bpf_fentry_test1, which cannot on 6.1.
 * Run it as root in a virtual machine: a kernel that has the defect panics, or goes on with an oops, and then this program
 * may never end.
 * Exit status: 0 the kernel has it not; 1 its log says that something is wrong; 4 it lacks what is needed.
 */
{% include "alone-head.c" %}

static const struct place fentry = { BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY, "bpf_fentry_test1" };

static const struct place lsm = { BPF_PROG_TYPE_LSM, BPF_LSM_MAC, "bpf_lsm_syslog" };

static struct attached sleeper;

/* The call that runs the image. */
static void *call(void *place)
{
	long value = place == &lsm ? syscall(SYS_syslog, 10, NULL, 0) : test_run(sleeper.program);

	return (void *)value;
}

/* A page that is not there until it is given. */
static char *keep_page(int *keeper)
{
	char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range = { (uint64_t)page, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };

	*keeper = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*keeper < 0 || page == MAP_FAILED)
		cannot_run("The kernel gives no userfaultfd: %s.", strerror(errno));
	if (ioctl(*keeper, UFFDIO_API, &api) || ioctl(*keeper, UFFDIO_REGISTER, &range))
		cannot_run("userfaultfd does not take a page: %s.", strerror(errno));
	return page;
}

static void give_page(int keeper, char *page)
{
	static char content[4096] __attribute__((aligned(4096)));
	struct uffdio_copy copy = { .dst = (uint64_t)page, .src = (uint64_t)content, .len = sizeof(content) };

	if (ioctl(keeper, UFFDIO_COPY, &copy))
		cannot_run("userfaultfd does not give the page: %s.", strerror(errno));
}

int main(int argc, char **argv)
{
	const struct place *place = argc > 1 && !strcmp(argv[1], "lsm") ? &lsm : &fentry;
	int keeper;
	char *page = keep_page(&keeper);
	const struct bpf_insn nothing[] = {
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	const struct bpf_insn waits[] = {
		{ BPF_ALU64 | BPF_MOV | BPF_X, 1, 10, 0, 0 },
		{ BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -8 },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 8 },
		{ BPF_LD | BPF_DW | BPF_IMM, 3, 0, 0, (int32_t)(uint64_t)page },
		{ 0, 0, 0, 0, (int32_t)((uint64_t)page >> 32) },
		{ BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_copy_from_user },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	struct attached victim;
	pthread_t caller;

	setvbuf(stdout, NULL, _IONBF, 0);
	open_log();
	begin(1, "the victim goes while a task sleeps before it in the image");
	victim = attach(nothing, COUNT(nothing), place, 0);
	sleeper = attach(waits, COUNT(waits), place, BPF_F_SLEEPABLE);
	if (pthread_create(&caller, NULL, call, (void *)place))
		cannot_run("There is no second thread.");
	sleep(1);
	printf("the link of the victim and the victim are closed\n");
	close(victim.link);
	close(victim.program);
	sleep(3);
	printf("the page is given, and the image goes on to the victim\n");
	give_page(keeper, page);
	pthread_join(caller, NULL);
	sleep(1);
	compare("the kernel's log", "", look_for_warning());
	return AGREES;
}

/* A task: a thread whose call stops in programs that sleep, each waiting for a page of user memory that userfaultfd(2) keeps back. */

#define PAGE 4096
#define PATIENCE 10 /* seconds until a task is held for one that goes nowhere */

static struct {
	pthread_t thread;
	int function, program; /* whose call it is; in which program it sleeps, or -1 */
	const uint64_t *words;
	uint32_t count;
	bool runs;
} task;

static int keeper;
static char *pages[COUNT(programs)];

PART void give_page(int program)
{
	struct uffdio_zeropage page = { .range = { (uint64_t)pages[program], PAGE } };

	if (ioctl(keeper, UFFDIO_ZEROPAGE, &page))
		cannot_run("userfaultfd does not give a page: %s.", strerror(errno));
}

PART void prepare_tasks(void)
{
	struct uffdio_api api = { .api = UFFD_API };

	keeper = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (keeper < 0 || ioctl(keeper, UFFDIO_API, &api))
		cannot_run("The kernel gives no userfaultfd: %s.", strerror(errno));
	for (size_t i = 0; i < COUNT(programs); i++) {
		char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct uffdio_register range = { .range = { (uint64_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };

		if (!programs[i].stops)
			continue;
		if (page == MAP_FAILED || ioctl(keeper, UFFDIO_REGISTER, &range))
			cannot_run("userfaultfd does not take a page: %s.", strerror(errno));
		pages[i] = page;
		give_page(i);
	}
}

/* The program reads its page before it does anything else. */
PART void emit_stop(const struct program *program)
{
	char *page = pages[program - programs];

	copy(1, 10);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, 1, 0, 0, -8);
	move(2, 8);
	move(3, (int64_t)page);
	emit(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_copy_from_user);
}

PART long begin_task(int function, const uint64_t *words, uint32_t count)
{
	begin_call();
	task.function = function;
	task.program = -1;
	task.words = words;
	task.count = count;
	task.runs = false;
	return 0;
}

PART void *run_task(void *nothing)
{
	if (command(COMMAND_CALL, "", task.words, task.count))
		cannot_run("The module does not make the call.");
	return nothing;
}

PART void go_on(void)
{
	if (task.program >= 0)
		give_page(task.program);
	else if (!task.runs && pthread_create(&task.thread, NULL, run_task, NULL))
		cannot_run("There is no second thread.");
	task.runs = true;
	task.program = -1;
}

/* Lets the task run until it sleeps in a program: the point where it stands. */
PART const char *step_task(int program, const char *point)
{
	struct pollfd waits = { .fd = keeper, .events = POLLIN };
	struct uffd_msg fault;

	if (madvise(pages[program], PAGE, MADV_DONTNEED))
		cannot_run("The kernel does not take a page back: %s.", strerror(errno));
	go_on();
	if (poll(&waits, 1, 1000 * PATIENCE) != 1 || read(keeper, &fault, sizeof(fault)) != sizeof(fault))
		return "nowhere that is known";
	if ((fault.arg.pagefault.address & -PAGE) != (uint64_t)pages[program])
		return "another program";
	task.program = program;
	return point;
}

/* Lets the task run to its end, which does not come where the kernel dies of it. */
PART void finish_task(const char *expected)
{
	struct timespec end;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE;
	go_on();
	if (pthread_timedjoin_np(task.thread, NULL, &end)) {
		compare("the kernel's log", "", look_for_warning());
		compare("the call", expected, "without an end");
	}
	end_call(task.function, expected, NULL);
}

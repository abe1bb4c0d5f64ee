// SPDX-License-Identifier: MIT
/*
 * A program may be attached to rcu_read_unlock_special(), which __rcu_read_unlock() calls at the end of a
 * section that was preempted, or that a grace period waits for. The image's own section ends by
 * __rcu_read_unlock(), in __bpf_prog_exit_recur(), also where the program is skipped as one that runs already;
 * the special state is still set, so that the function is called again, and with it the image, until the stack
 * is over. Since a0c109dcafb1 the two callers are denied to programs; the callee is not. A program on rcu_* is
 * enough to end the kernel. plan names the function as one to leave out. Program: docs/defects/DEFECT-31.c
 * (tests/export/test_defects_vm.py).
 *
 * A program is attached to rcu_read_unlock_special. More threads than there are processors walk a path so long that most of their
 * time is one section of RCU, and are preempted in it, while this one waits for grace periods. Such a section ends in the function.
 *
 * Build: gcc -Wall -Wextra -pthread -o DEFECT-31 DEFECT-31.c.
 * Run it as root in a virtual machine: a kernel that has the defect runs over the end of a stack, and this program never ends.
 * Exit status: 0 the kernel has it not; 1 its log says that something is wrong; 4 it lacks what is needed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where a program is attached. */
struct place {
	enum bpf_prog_type program_type;
	enum bpf_attach_type attach_type;
	const char *function;
};

/* What was expected and what is seen: the first difference ends the program. */

#define PART static __attribute__((unused)) /* a seed uses some of these functions, and few use all */
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { AGREES = 0, DIFFERS = 1, CANNOT_RUN = 4 }; /* 4 is what kselftest takes for a skip */

static struct {
	int line;
	const char *text;
} step;

PART __attribute__((noreturn, format(printf, 1, 2))) void cannot_run(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(CANNOT_RUN);
}

PART void print_block(const char *title, const char *text)
{
	printf("  %s", title);
	for (const char *at = text; *at; at++) {
		putchar(*at);
		if (*at == '\n' && at[1])
			printf("            ");
	}
	if (!*text || text[strlen(text) - 1] != '\n')
		putchar('\n');
}

PART void compare(const char *what, const char *expected, const char *seen)
{
	if (!strcmp(expected, seen))
		return;
	printf("%s differs at line %d: %s\n", what, step.line, step.text);
	print_block("expected: ", *expected ? expected : "nothing");
	print_block("seen:     ", *seen ? seen : "nothing");
	exit(DIFFERS);
}

/* A text that grows. */
struct text {
	char *bytes;
	size_t used, room;
};

PART __attribute__((format(printf, 2, 3))) void append(struct text *text, const char *format, ...)
{
	va_list arguments;
	size_t length;

	va_start(arguments, format);
	length = vsnprintf(NULL, 0, format, arguments);
	va_end(arguments);
	if (text->used + length + 1 > text->room) {
		text->room = 2 * (text->used + length + 1);
		text->bytes = realloc(text->bytes, text->room);
		if (!text->bytes)
			cannot_run("There is not enough memory.");
	}
	va_start(arguments, format);
	vsnprintf(text->bytes + text->used, length + 1, format, arguments);
	va_end(arguments);
	text->used += length;
}

PART const char *content(const struct text *text)
{
	return text->used ? text->bytes : "";
}

PART void empty(struct text *text)
{
	text->used = 0;
}

/* A whole file; NULL where it cannot be read. One byte behind it is a NUL. */
PART char *read_whole(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0, room = 1 << 16;
	char *bytes = malloc(room + 1);
	ssize_t got = -1;

	while (fd >= 0 && bytes && (got = read(fd, bytes + used, room - used)) > 0) {
		used += got;
		if (used == room) {
			room *= 2;
			bytes = realloc(bytes, room + 1);
		}
	}
	if (fd >= 0)
		close(fd);
	if (got < 0 || !bytes) {
		free(bytes);
		return NULL;
	}
	bytes[used] = 0;
	if (size)
		*size = used;
	return bytes;
}

PART char *need(const char *path, size_t *size)
{
	char *bytes = read_whole(path, size);

	if (!bytes)
		cannot_run("This needs to read %s: %s.", path, strerror(errno));
	return bytes;
}

/* One write(2) to a file: 0, or -errno. */
PART long write_file(const char *path, const void *bytes, size_t size, int flags)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | flags);
	long value = fd < 0 ? -errno : write(fd, bytes, size);

	if (fd >= 0 && value < 0)
		value = -errno;
	if (fd >= 0)
		close(fd);
	return value < 0 ? value : 0;
}

PART const char *spell_error(long value)
{
	static const struct {
		int number;
		const char *name;
	} names[] = {
		{ EPERM, "EPERM" },   { ENOENT, "ENOENT" }, { E2BIG, "E2BIG" },   { EBADF, "EBADF" },
		{ EAGAIN, "EAGAIN" }, { ENOMEM, "ENOMEM" }, { EFAULT, "EFAULT" }, { EBUSY, "EBUSY" },
		{ EEXIST, "EEXIST" }, { ENODEV, "ENODEV" }, { EINVAL, "EINVAL" }, { ENOSPC, "ENOSPC" },
		{ ENOSYS, "ENOSYS" }, { EOPNOTSUPP, "EOPNOTSUPP" }, { 524, "ENOTSUPP" },
	};
	static char number[24];

	for (size_t i = 0; i < COUNT(names); i++)
		if (-value == names[i].number)
			return names[i].name;
	snprintf(number, sizeof(number), "E%ld", -value);
	return number;
}

/* A name of a table by its number. */
PART const char *nth(const char *const *names, size_t count, size_t number)
{
	return number < count && names[number] ? names[number] : "unknown";
}

/* Warnings: what the kernel printed since the last look. */

static int kmsg = -1;

PART void open_log(void)
{
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0)
		cannot_run("This needs to read /dev/kmsg, to see warnings: %s.", strerror(errno));
	lseek(kmsg, 0, SEEK_END);
}

/* Let every WARN_ONCE warn again; where debugfs is not mounted only the first one shows. */
PART void rearm_warnings(void)
{
	write_file("/sys/kernel/debug/clear_warn_once", "1", 1, 0);
}

/* The first warning since the last look, or an empty text. What is worse ends the program. */
PART const char *look_for_warning(void)
{
	static char warning[256];
	char record[8192];
	ssize_t got;

	warning[0] = 0;
	while ((got = read(kmsg, record, sizeof(record) - 1)) > 0 || (got < 0 && errno == EPIPE)) {
		char *text;

		record[got < 0 ? 0 : got] = 0;
		text = strchr(record, ';');
		if (!text)
			continue;
		text[1 + strcspn(text + 1, "\n")] = 0;
		if (strstr(text, "WARNING: ") && !warning[0])
			snprintf(warning, sizeof(warning), "%s", text + 1);
		if (strstr(text, "BUG:") || strstr(text, "Oops") || strstr(text, "general protection"))
			compare("the kernel's log", "", text + 1);
	}
	return warning;
}

PART void begin(int line, const char *text)
{
	step.line = line;
	step.text = text;
	rearm_warnings();
	look_for_warning();
}

/* The harness answers these itself: a kernel has no names for ops and links, or does not survive it. */
PART void not_carried_out(const char *rule)
{
	printf("line %d is not carried out (%s): %s\n", step.line, rule, step.text);
}

PART void outcome(long value, const char *expected)
{
	const char *warning = look_for_warning();
	char seen[64];

	snprintf(seen, sizeof(seen), "%s%s%s", value < 0 ? "-" : "", value < 0 ? spell_error(value) : "0",
		 *warning ? " WARN" : "");
	if (strcmp(expected, seen) && *warning)
		printf("%s\n", warning);
	compare("the outcome", expected, seen);
}

/* BTF: the ids of functions by their names. */

struct btf {
	const char *bytes;
	uint32_t first_id, ids, first_string, strings; /* `ids` and `strings` are how many this blob has */
};

static struct btf vmlinux_btf = { .first_id = 1 };

struct btf_section {
	struct btf_header header;
	uint32_t layouts, layouts_length; /* since 7.1 */
};

/* Words that a type of a kind takes, and each of its members. */
PART uint32_t words_of(const char *blob, uint32_t info)
{
	static const uint8_t fixed[] = { 3, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3 };
	static const uint8_t each[] = { 0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3 };
	const struct btf_section *section = (const void *)blob;
	uint32_t kind = info >> 24 & 0x7f, members = info & 0xffffff;
	const uint8_t *layout;

	if (kind < COUNT(fixed))
		return fixed[kind] + each[kind] * members;
	if (section->header.hdr_len < sizeof(*section) || 4 * kind >= section->layouts_length)
		cannot_run("The BTF has types of a kind that is not known, %u.", kind);
	layout = (const uint8_t *)blob + section->header.hdr_len + section->layouts + 4 * kind;
	return 3 + layout[0] / 4 + layout[1] / 4 * members;
}

/* The string at an offset, which may be one of vmlinux's. */
PART const char *btf_string(const struct btf *btf, uint32_t offset)
{
	const struct btf *owner = offset < btf->first_string ? &vmlinux_btf : btf;
	const struct btf_header *header = (const void *)owner->bytes;

	return owner->bytes + header->hdr_len + header->str_off + (offset - owner->first_string);
}

/* Walks over the types: the id of a FUNC of a name, or 0. Without a name it counts them. */
PART uint32_t walk_btf(struct btf *btf, const char *name)
{
	const struct btf_header *header = (const void *)btf->bytes;
	const uint32_t *word = (const void *)(btf->bytes + header->hdr_len + header->type_off);
	const uint32_t *end = word + header->type_len / 4;
	uint32_t id = btf->first_id;

	for (; word < end; word += words_of(btf->bytes, word[1]), id++)
		if (name && (word[1] >> 24 & 0x7f) == BTF_KIND_FUNC && !strcmp(btf_string(btf, word[0]), name))
			return id;
	btf->ids = id - btf->first_id;
	btf->strings = header->str_len;
	return 0;
}

PART void read_vmlinux_btf(void)
{
	if (vmlinux_btf.bytes)
		return;
	vmlinux_btf.bytes = need("/sys/kernel/btf/vmlinux", NULL);
	walk_btf(&vmlinux_btf, NULL);
}

/* The BTF of a module, which continues the kernel's. */
PART struct btf module_btf(const char *bytes)
{
	read_vmlinux_btf();
	return (struct btf){
		.bytes = bytes,
		.first_id = vmlinux_btf.first_id + vmlinux_btf.ids,
		.first_string = vmlinux_btf.strings,
	};
}

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

// SPDX-License-Identifier: MIT
/*
 * DEFECT-5
 *
 * update_ftrace_direct_del of some functions of an ops empties its notrace hash: foo2, which it excludes, is
 * called directly from then on (DIRECT-11). linux-7.3 at 7.3.4 does so (spec/DEFECTS.md, DEFECT-5).
 *
 * The rules are those of linux-7.3. Build this and its modules by `make` beside it, and run it as root in a virtual
 * machine that was just booted: the modules stay, and what the seed attaches goes only with the machine.
 *
 * Usage: DEFECT-5 [DIRECTORY OF THE MODULES]
 * Exit status: 0 the kernel does as expected; 1 it does not, and the step, the expected and the seen are printed; 4 this
 * kernel lacks what is needed.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define TRACING "/sys/kernel/tracing"
#define ENDBR_BYTES 4
#define NOWHERE 1ul /* where no function is; a hash has 0 in place of functions that have gone */

/* The commands of the module, places in the table `verbs` of its core.c. */
enum {
	COMMAND_CLEAR,
	COMMAND_WARN,
	COMMAND_OOPS,
	COMMAND_CALL,
	COMMAND_OPS_DECLARE,
	COMMAND_OPS_FILTER_IP,
	COMMAND_OPS_FILTER_IPS,
	COMMAND_OPS_FILTER,
	COMMAND_OPS_NOTRACE,
	COMMAND_OPS_FREE,
	COMMAND_OPS_REGISTER,
	COMMAND_OPS_UNREGISTER,
	COMMAND_DIRECT_REGISTER,
	COMMAND_DIRECT_UNREGISTER,
	COMMAND_DIRECT_MODIFY,
	COMMAND_MULTI_REGISTER,
	COMMAND_MULTI_UNREGISTER,
	COMMAND_MULTI_MODIFY,
	COMMAND_HASH_ADD,
	COMMAND_HASH_DEL,
	COMMAND_HASH_MOD,
	COMMAND_LIVEPATCH,
	COMMAND_UNLIVEPATCH,
	COMMAND_HOLD,
	COMMAND_SETTLE,
	COMMAND_PARK_BEGIN,
	COMMAND_PARK_CALL,
	COMMAND_PARK_STEP,
	COMMAND_PARK_WAIT,
	COMMAND_PARK_LOOK,
	COMMAND_GRACE_PERIOD,
	COMMAND_PARK_THREAD,
};

/* Who has functions: the kernel, and modules. `fmodret` are those that fmod_ret programs may attach to. */
enum { VMLINUX, CORE, HOME_mod1 };

static const struct {
	const char *name, *const *fmodret;
} homes[] = {
	{ NULL, NULL },
	{ "massattach", (const char *const[]){ "foo0", "foo1", "foo2", "foo3", "foo4", "foo5", "foo6", "foo7", "foo8", "foo9", "foo10", "foo11", "foo12", "outer", "narrow", "split", "spill", NULL } },
	{ "mod1", (const char *const[]){ "bar0", "bar1", "bar2", "bar3", "bar4", "bar5", "bar6", "bar7", "bar8", "bar9", "bar10", "bar11", "bar12", NULL } },
};

/* Functions: of `nth` of a symbol; bytes of the words of their arguments, and of what they return. */
static struct function {
	const char *name, *symbol;
	int home, nth, slots;
	uint8_t widths[32];
	int returns;
	bool returns_signed;
	unsigned long address, patched;
	uint32_t btf_id;
} functions[] = {
	{ "foo0", "foo0", CORE, 1, 0, { 0 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo1", "foo1", CORE, 1, 1, { 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo2", "foo2", CORE, 1, 2, { 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo3", "foo3", CORE, 1, 3, { 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo4", "foo4", CORE, 1, 4, { 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo5", "foo5", CORE, 1, 5, { 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo6", "foo6", CORE, 1, 6, { 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo7", "foo7", CORE, 1, 7, { 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo8", "foo8", CORE, 1, 8, { 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo9", "foo9", CORE, 1, 9, { 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo10", "foo10", CORE, 1, 10, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo11", "foo11", CORE, 1, 11, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "foo12", "foo12", CORE, 1, 12, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "outer", "outer", CORE, 1, 1, { 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "narrow", "narrow", CORE, 1, 4, { 1, 2, 4, 1 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "split", "split", CORE, 1, 4, { 8, 8, 8, 4 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "spill", "spill", CORE, 1, 8, { 1, 1, 1, 1, 1, 8, 8, 1 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar0", "bar0", HOME_mod1, 1, 0, { 0 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar1", "bar1", HOME_mod1, 1, 1, { 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar2", "bar2", HOME_mod1, 1, 2, { 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar3", "bar3", HOME_mod1, 1, 3, { 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar4", "bar4", HOME_mod1, 1, 4, { 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar5", "bar5", HOME_mod1, 1, 5, { 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar6", "bar6", HOME_mod1, 1, 6, { 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar7", "bar7", HOME_mod1, 1, 7, { 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar8", "bar8", HOME_mod1, 1, 8, { 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar9", "bar9", HOME_mod1, 1, 9, { 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar10", "bar10", HOME_mod1, 1, 10, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar11", "bar11", HOME_mod1, 1, 11, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
	{ "bar12", "bar12", HOME_mod1, 1, 12, { 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8 }, 8, true, NOWHERE, NOWHERE, 0 },
};

enum {
	FN_foo0,
	FN_foo1,
	FN_foo2,
	FN_foo3,
	FN_foo4,
	FN_foo5,
	FN_foo6,
	FN_foo7,
	FN_foo8,
	FN_foo9,
	FN_foo10,
	FN_foo11,
	FN_foo12,
	FN_outer,
	FN_narrow,
	FN_split,
	FN_spill,
	FN_bar0,
	FN_bar1,
	FN_bar2,
	FN_bar3,
	FN_bar4,
	FN_bar5,
	FN_bar6,
	FN_bar7,
	FN_bar8,
	FN_bar9,
	FN_bar10,
	FN_bar11,
	FN_bar12,
};

/* The names of ops by slot, and of direct trampolines by stub. */
static const char *const ops_names[] = { "o1", NULL };
static const char *const tramp_names[] = { "T1", "T2", "T3", NULL };

static uint32_t nested_kfunc __attribute__((unused));

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

/* The kernel's symbols and memory. */

struct symbol {
	unsigned long address;
	const char *name;
	const char *module; /* NULL: the kernel proper */
};

static struct {
	struct symbol *all;
	size_t count;
	char *text;
} symbols;

PART bool is_ours(const char *module)
{
	for (size_t i = 0; i < COUNT(homes); i++)
		if (homes[i].name && !strcmp(homes[i].name, module))
			return true;
	return false;
}

PART int by_address(const void *left, const void *right)
{
	const struct symbol *a = left, *b = right;

	return (a->address > b->address) - (a->address < b->address);
}

/* Takes a line ADDRESS TYPE NAME[\t[MODULE]] apart. */
PART bool parse_symbol(char *line, struct symbol *symbol)
{
	char *name, *module;

	symbol->address = strtoul(line, &name, 16);
	if (strlen(name) < 4)
		return false;
	symbol->name = name + 3;
	symbol->module = NULL;
	module = strchr(name, '\t');
	if (module) {
		*module = 0;
		symbol->module = module + 2;
		module[strcspn(module + 1, "]") + 1] = 0;
	}
	return !symbol->module || is_ours(symbol->module);
}

/* Reads /proc/kallsyms: again after each module that comes. */
PART void read_symbols(void)
{
	size_t room = 1 << 18;
	char *save = NULL;

	free(symbols.text);
	free(symbols.all);
	symbols.text = need("/proc/kallsyms", NULL);
	symbols.all = malloc(room * sizeof(*symbols.all));
	symbols.count = 0;
	for (char *line = strtok_r(symbols.text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		if (symbols.count == room) {
			room *= 2;
			symbols.all = realloc(symbols.all, room * sizeof(*symbols.all));
		}
		if (!symbols.all)
			cannot_run("There is not enough memory.");
		symbols.count += parse_symbol(line, &symbols.all[symbols.count]);
	}
	qsort(symbols.all, symbols.count, sizeof(*symbols.all), by_address);
}

/* The nth address of a name, from 1; 0 if there is none. */
PART unsigned long address_of(const char *name, const char *module, int nth)
{
	for (size_t i = 0; i < symbols.count; i++) {
		const struct symbol *symbol = &symbols.all[i];

		if (strcmp(symbol->name, name) || !symbol->module != !module)
			continue;
		if ((!module || !strcmp(symbol->module, module)) && !--nth)
			return symbol->address;
	}
	return 0;
}

PART bool is_symbol(unsigned long address)
{
	struct symbol key = { .address = address };

	return bsearch(&key, symbols.all, symbols.count, sizeof(*symbols.all), by_address);
}

PART unsigned long needed_address(const char *name)
{
	unsigned long address = address_of(name, NULL, 1);

	if (!address)
		cannot_run("This needs the address of %s, which /proc/kallsyms does not show.", name);
	return address;
}

/* Kernel memory, through /proc/kcore. */

static struct {
	int fd;
	Elf64_Phdr *segments;
	int count;
} kcore = { .fd = -1 };

PART void read_segments(void)
{
	Elf64_Ehdr header;
	size_t size;

	kcore.count = 0;
	if (kcore.fd < 0)
		kcore.fd = open("/proc/kcore", O_RDONLY | O_CLOEXEC);
	if (kcore.fd < 0)
		cannot_run("This needs to read /proc/kcore, to see what sites call: %s.", strerror(errno));
	if (pread(kcore.fd, &header, sizeof(header), 0) != sizeof(header))
		return;
	size = header.e_phnum * sizeof(Elf64_Phdr);
	kcore.segments = realloc(kcore.segments, size);
	if (kcore.segments && pread(kcore.fd, kcore.segments, size, header.e_phoff) == (ssize_t)size)
		kcore.count = header.e_phnum;
}

/* As many bytes as there are, up to `size`. */
PART size_t read_memory(unsigned long address, void *bytes, size_t size)
{
	for (int again = 0; again < 2; again++) {
		for (int i = 0; i < kcore.count; i++) {
			const Elf64_Phdr *segment = &kcore.segments[i];
			unsigned long offset = address - segment->p_vaddr;
			ssize_t got;

			if (segment->p_type != PT_LOAD || offset >= segment->p_memsz)
				continue;
			got = pread(kcore.fd, bytes, size, segment->p_offset + offset);
			return got < 0 ? 0 : got;
		}
		read_segments();
	}
	return 0;
}

PART unsigned long read_word(unsigned long address)
{
	unsigned long word = 0;

	read_memory(address, &word, sizeof(word));
	return word;
}

/* Functions of the seed. */

PART int find_function(unsigned long ip, bool *patched)
{
	for (size_t i = 0; i < COUNT(functions); i++) {
		const struct function *function = &functions[i];

		*patched = function->patched > NOWHERE && ip - function->patched <= ENDBR_BYTES;
		if (*patched || (function->address > NOWHERE && ip - function->address <= ENDBR_BYTES))
			return i;
	}
	return -1;
}

PART const char *spell_function(unsigned long ip)
{
	static char text[4][96];
	static int next;
	bool patched;
	int found = find_function(ip, &patched);
	char *spelled = text[next++ % 4];

	if (found < 0)
		snprintf(spelled, sizeof(text[0]), "%#lx", ip);
	else
		snprintf(spelled, sizeof(text[0]), "%s%s", functions[found].name, patched ? "__patched" : "");
	return spelled;
}

/* The addresses of a home's functions, as they are now. */
PART void find_functions(int home)
{
	for (size_t i = 0; i < COUNT(functions); i++) {
		struct function *function = &functions[i];
		char twin[160];

		if (function->home != home)
			continue;
		snprintf(twin, sizeof(twin), "%s__patched", function->symbol);
		function->address = address_of(function->symbol, homes[home].name, function->nth);
		function->patched = homes[home].name ? address_of(twin, homes[home].name, 1) : 0;
		if (!function->address)
			function->address = NOWHERE;
		if (!function->patched)
			function->patched = NOWHERE;
	}
}

PART unsigned long at(int function)
{
	return functions[function].address;
}

PART unsigned long patched(int function)
{
	return functions[function].patched;
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

/* The modules: they hold the functions that the seed speaks of, and call ftrace's interfaces when they are told to. */

#define CONTROL "/proc/massattach"
#define WORDS(...) (const uint64_t[]){ __VA_ARGS__ }, sizeof((const uint64_t[]){ __VA_ARGS__ }) / 8

static const char *directory = "module";
static int btf_fds[COUNT(homes)];

struct section {
	char *bytes;
	size_t size;
};

PART struct section find_section(char *elf, const char *name)
{
	const Elf64_Ehdr *header = (const void *)elf;
	const Elf64_Shdr *sections = (const void *)(elf + header->e_shoff);
	const char *names = elf + sections[header->e_shstrndx].sh_offset;

	for (int i = 0; i < header->e_shnum; i++)
		if (!strcmp(names + sections[i].sh_name, name))
			return (struct section){ elf + sections[i].sh_offset, sections[i].sh_size };
	return (struct section){ NULL, 0 };
}

struct id_set {
	uint32_t count, flags;
	struct {
		uint32_t id, flags;
	} pairs[];
};

PART int by_id(const void *left, const void *right)
{
	const uint32_t *a = left, *b = right;

	return (*a > *b) - (*a < *b);
}

/* Fills a btf_id_set8 of a module, which the kernel's build would do by resolve_btfids. */
PART void fill_set(char *elf, struct btf *btf, const char *section, const char *const *names)
{
	struct id_set *set = (void *)find_section(elf, section).bytes;

	if (!set)
		return;
	for (uint32_t i = 0; i < set->count && names[i]; i++) {
		set->pairs[i].id = walk_btf(btf, names[i]);
		if (!set->pairs[i].id)
			cannot_run("The module's BTF does not name the function %s.", names[i]);
	}
	qsort(set->pairs, set->count, sizeof(set->pairs[0]), by_id);
}

/* The parameters NAME=ADDRESS of functions that the kernel does not export, which the module's modinfo names. */
PART void append_imports(char *elf, struct text *parameters)
{
	struct section info = find_section(elf, ".modinfo");
	const char *end = info.bytes + info.size;

	for (const char *entry = info.bytes; entry && entry < end; entry += strlen(entry) + 1) {
		int length = 0;

		if (strncmp(entry, "parmtype=", 9))
			continue;
		length = strcspn(entry + 9, ":");
		if (!strcmp(entry + 9 + length, ":ulong")) {
			char name[128];

			snprintf(name, sizeof(name), "%.*s", length, entry + 9);
			append(parameters, "%s=%#lx ", name, address_of(name, NULL, 1));
		}
	}
}

PART long load_module(int home)
{
	static const char *const kfuncs[] = { "massattach_nested", NULL };
	const char *name = homes[home].name;
	struct text parameters = { 0 };
	char path[4096], *elf;
	struct section blob;
	struct btf btf;
	size_t size;
	long value;

	snprintf(path, sizeof(path), "%s/%s.ko", directory, name);
	elf = need(path, &size);
	blob = find_section(elf, ".BTF");
	if (!blob.bytes)
		cannot_run("%s has no BTF: pahole has to add it, as the Makefile beside it does.", path);
	btf = module_btf(blob.bytes);
	fill_set(elf, &btf, ".massattach_fmodret_ids", homes[home].fmodret);
	fill_set(elf, &btf, ".massattach_kfunc_ids", kfuncs);
	append_imports(elf, &parameters);
	value = syscall(SYS_init_module, elf, size, content(&parameters)) ? -errno : 0;
	if (!value) {
		read_symbols();
		find_functions(home);
		for (size_t i = 0; i < COUNT(functions); i++)
			if (functions[i].home == home)
				functions[i].btf_id = functions[i].nth > 1 ? 0 : walk_btf(&btf, functions[i].symbol);
		if (home == CORE)
			nested_kfunc = walk_btf(&btf, "massattach_nested");
	}
	free(elf);
	free(parameters.bytes);
	return value;
}

PART void load_modules(void)
{
	read_symbols();
	find_functions(VMLINUX);
	for (size_t i = 0; i < COUNT(functions); i++)
		if (functions[i].home == VMLINUX && functions[i].address > NOWHERE && functions[i].nth == 1) {
			read_vmlinux_btf();
			functions[i].btf_id = walk_btf(&vmlinux_btf, functions[i].symbol);
		}
	for (int home = CORE; home < (int)COUNT(homes); home++) {
		long refused = load_module(home);

		if (refused == -EEXIST)
			cannot_run("The module %s is loaded already: begin with a kernel that was just booted.", homes[home].name);
		if (refused)
			cannot_run("The kernel refuses the module %s: %s.", homes[home].name, spell_error(refused));
	}
}

/* `fail jit_charge`: for those without CAP_BPF and CAP_SYS_ADMIN a limit of 1 byte refuses an image its memory. */

#define JIT_LIMIT "/proc/sys/net/core/bpf_jit_limit"

static bool charge_fails;

PART void set_capabilities(uint64_t effective)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = effective, .permitted = ~0u },
		{ .effective = effective >> 32, .permitted = ~0u },
	};

	if (syscall(SYS_capset, &header, data)) {
		/* Only the capabilities that the kernel knows can be asked for. */
		data[1].permitted = data[1].effective &= (1u << (CAP_LAST_CAP - 31)) - 1;
		if (syscall(SYS_capset, &header, data))
			cannot_run("This needs all capabilities: %s.", strerror(errno));
	}
}

PART void refuse_charge(bool refuse)
{
	static char limit[32];

	if (!charge_fails)
		return;
	if (refuse) {
		char *present = need(JIT_LIMIT, NULL);

		snprintf(limit, sizeof(limit), "%s", present);
		free(present);
		write_file(JIT_LIMIT, "1", 1, 0);
		set_capabilities(~(1ull << CAP_BPF | 1ull << CAP_SYS_ADMIN));
	} else {
		set_capabilities(~0ull);
		write_file(JIT_LIMIT, limit, strlen(limit), 0);
	}
}

/* One command of the module: what the kernel's own call returned. */
PART long command(uint32_t verb, const char *text, const uint64_t *words, uint32_t count)
{
	uint32_t header[] = { verb, count };
	size_t length = strlen(text), size = sizeof(header) + 8 * count + length;
	char *bytes = malloc(size);
	long value;

	if (!bytes)
		cannot_run("There is not enough memory.");
	memcpy(bytes, header, sizeof(header));
	memcpy(bytes + sizeof(header), words, 8 * count);
	memcpy(bytes + sizeof(header) + 8 * count, text, length);
	refuse_charge(true);
	value = write_file(CONTROL, bytes, size, 0);
	refuse_charge(false);
	free(bytes);
	return value;
}

PART long add_module(int home)
{
	return load_module(home);
}

/* The memory that a module has left is held: what a filter still has of it must not select what comes there. */
PART long remove_module(int home)
{
	unsigned long first = ~0ul, last = 0;

	if (syscall(SYS_delete_module, homes[home].name, O_NONBLOCK))
		return -errno;
	for (size_t i = 0; i < COUNT(functions); i++) {
		struct function *function = &functions[i];

		if (function->home != home || function->address <= NOWHERE)
			continue;
		first = function->address < first ? function->address : first;
		last = function->address > last ? function->address : last;
		function->address = function->patched = NOWHERE;
		function->btf_id = 0;
	}
	if (btf_fds[home])
		close(btf_fds[home]);
	btf_fds[home] = 0;
	if (last && command(COMMAND_HOLD, "", WORDS(first & -4096ul, (last & -4096ul) + 4096)))
		cannot_run("The memory of the module cannot be held.");
	return 0;
}

PART const char *spell_program(unsigned long address);

/* Sites: what enabled_functions says of each, and what the bytes there call. */

#define ENABLED TRACING "/enabled_functions"
#define CALL_BYTES 5
#define IMAGE_BYTES 4096

PART bool is_endbr(const uint8_t *code)
{
	/* endbr64, and the nops that take its place where no indirect call comes */
	static const uint8_t forms[][4] = {
		{ 0xf3, 0x0f, 0x1e, 0xfa }, { 0x66, 0x0f, 0x1f, 0x00 }, { 0x0f, 0x1f, 0x40, 0xd6 },
	};

	for (size_t i = 0; i < COUNT(forms); i++)
		if (!memcmp(code, forms[i], sizeof(forms[i])))
			return true;
	return false;
}

/* What the site of a function calls, or 0 for a nop; `site` becomes its address. */
PART unsigned long decode_site(unsigned long address, unsigned long *site)
{
	uint8_t code[ENDBR_BYTES + CALL_BYTES] = { 0 };
	int32_t distance;

	*site = address;
	if (read_memory(address, code, sizeof(code)) != sizeof(code))
		return 0;
	*site += is_endbr(code) ? ENDBR_BYTES : 0;
	memcpy(&distance, code + (*site - address) + 1, sizeof(distance));
	switch (code[*site - address]) {
	case 0xe8:
	case 0xe9:
		return *site + CALL_BYTES + distance;
	}
	return 0;
}

/* The kernel's table of direct entries: what it has for a site. Bit 0 says that it is reached by jmp. */
PART unsigned long direct_entry(unsigned long site)
{
	unsigned long table = read_word(needed_address("direct_functions"));
	unsigned long bits = read_word(table), buckets = read_word(table + 8);

	for (unsigned long bucket = 0; buckets && bucket < 1ul << bits; bucket++) {
		unsigned long entry = read_word(buckets + 8 * bucket);

		for (; entry; entry = read_word(entry))
			if (read_word(entry + 16) == site)
				return read_word(entry + 24) & ~1ul;
	}
	return 0;
}

/* The end of an image: leave, perhaps a return address dropped, and the return. */
PART bool is_end(const uint8_t *code)
{
	static const uint8_t drop[] = { 0x48, 0x83, 0xc4, 0x08 };

	if (code[0] != 0xc9)
		return false;
	code += memcmp(code + 1, drop, sizeof(drop)) ? 1 : 1 + sizeof(drop);
	return code[0] == 0xc3 || (code[0] == 0xe9 && code[5] == 0xcc);
}

/* Where a call at this place goes to, or 0: 0xe8 is a call where a program, a function or the site's own body is met. */
PART unsigned long find_callee(const uint8_t *code, unsigned long place)
{
	int32_t distance;
	unsigned long callee;
	bool patched;

	memcpy(&distance, code + 1, sizeof(distance));
	callee = place + CALL_BYTES + distance;
	if (code[0] != 0xe8)
		return 0;
	return spell_program(callee) || is_symbol(callee) || find_function(callee - CALL_BYTES, &patched) >= 0 ? callee : 0;
}

/* How far the next instruction is at least: what a mov of a pointer to rdi, or a call, has in itself is no code. */
PART size_t skip(const uint8_t *code, unsigned long callee)
{
	if (callee)
		return CALL_BYTES;
	return code[0] == 0x48 && code[1] == 0xbf ? 10 : 1;
}

/* The programs of an image in the order in which it calls them. */
PART void append_image(struct text *text, unsigned long image)
{
	static uint8_t code[IMAGE_BYTES + 16];
	size_t size = read_memory(image, code, IMAGE_BYTES);
	const char *comma = "";
	size_t place = 0;

	append(text, "trampoline:");
	while (place + CALL_BYTES <= size && !is_end(code + place)) {
		unsigned long callee = find_callee(code + place, image + place);
		const char *program = callee ? spell_program(callee) : NULL;

		place += skip(code + place, callee);
		if (program) {
			append(text, "%s%s", comma, program);
			comma = ",";
		}
	}
}

struct line {
	const char *text; /* behind the function's name */
	const char *entry; /* the line with `direct-->`, or NULL */
};

/* The lines of a function in enabled_functions. */
PART struct line find_line(const char *file, const struct function *function)
{
	const char *module = homes[function->home].name;
	struct line found = { NULL, NULL };
	char start[256];
	size_t length;

	length = snprintf(start, sizeof(start), module ? "%s [%s] (" : "%s (", function->symbol, module);
	for (const char *line = file; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, start, length)) {
			const char *next = strchr(line, '\n');

			found.text = line + length - 1;
			found.entry = next && !strncmp(next + 1, "\tdirect", 7) ? next + 1 : NULL;
			break;
		}
	return found;
}

/* The ops whose own trampoline is at an address, as a site's line tells it: `tramp: ADDRESS (FUNC+...`. */
PART bool append_ops(struct text *text, const char *line, unsigned long target)
{
	const char *end = line ? line + strcspn(line, "\n") : NULL;
	const char *tramp = line ? strstr(line, "tramp: ") : NULL;
	unsigned long address;
	unsigned slot;
	char func[128];

	if (!tramp || tramp > end || sscanf(tramp, "tramp: %lx (%127[^+]", &address, func) != 2 || address != target)
		return false;
	if (sscanf(func, "massattach_ops%u", &slot) == 1)
		append(text, "ops:%s", nth(ops_names, COUNT(ops_names), slot));
	else
		append(text, "ops:%s", strcmp(func, "massattach_redirect") ? "graph_ops" : "klp_ops");
	return true;
}

PART bool append_symbol(struct text *text, unsigned long target)
{
	static const char *const callers[] = { "ftrace_caller", "ftrace_regs_caller" };

	for (size_t i = 0; i < COUNT(callers); i++)
		if (address_of(callers[i], NULL, 1) == target) {
			append(text, "%s", callers[i]);
			return true;
		}
	for (size_t i = 0; i < COUNT(tramp_names); i++) {
		char stub[32];

		snprintf(stub, sizeof(stub), "massattach_stub%zu", i);
		if (tramp_names[i] && address_of(stub, "massattach", 1) == target) {
			append(text, "direct:%s", tramp_names[i]);
			return true;
		}
	}
	return false;
}

PART void append_target(struct text *text, const char *line, unsigned long target)
{
	if (!target)
		append(text, "nop");
	else if (!append_ops(text, line, target) && !append_symbol(text, target))
		append_image(text, target);
}

/* The letters of a line that count here: registers saved, instruction pointer changed, direct call. */
PART void append_letters(struct text *text, const char *line)
{
	const char *blank = " ";

	for (line = strchr(line, ')') + 1; *line && strchr(" RIDOM", *line); line++)
		if (strchr("RID", *line)) {
			append(text, "%s%c", blank, *line);
			blank = "";
		}
}

/* One site as the seeds spell it: (COUNT) LETTERS TARGET direct-->ENTRY. Nothing for a nop that nobody covers. */
PART void append_site(struct text *text, const char *file, const struct function *function, const char *end)
{
	struct line line = { NULL, NULL };
	unsigned long site, target;

	if (function->address <= NOWHERE)
		return;
	line = find_line(file, function);
	target = decode_site(function->address, &site);
	if (!line.text && !target)
		return;
	append(text, "%s (%d)", function->name, line.text ? atoi(line.text + 1) : 0);
	if (line.text)
		append_letters(text, line.text);
	append(text, " ");
	append_target(text, line.text, target);
	if (line.entry) {
		bool alone = atoi(line.text + 1) == 1 && target;

		append(text, " direct-->");
		append_target(text, NULL, alone ? target : direct_entry(site));
	}
	append(text, "%s", end);
}

PART long ftrace_enabled(const char *value)
{
	return write_file("/proc/sys/kernel/ftrace_enabled", value, strlen(value), 0);
}

/* Every site of the seed's functions that is not a plain nop, a line each. */
PART void sites(const char *expected)
{
	static struct text seen;
	char *file = need(ENABLED, NULL);

	empty(&seen);
	for (size_t i = 0; i < COUNT(functions); i++)
		append_site(&seen, file, &functions[i], "\n");
	free(file);
	compare("what the sites show", expected, content(&seen));
}

/* The target alone. */
PART void site(int number, const char *expected)
{
	static struct text seen;
	char *file = need(ENABLED, NULL);
	const struct function *function = &functions[number];
	unsigned long place;

	empty(&seen);
	if (function->address <= NOWHERE)
		append(&seen, "nop");
	else
		append_target(&seen, find_line(file, function).text, decode_site(function->address, &place));
	free(file);
	compare("the site", expected, content(&seen));
}

/* Calls: what ran in one, by the marks of all recorders in the order of time. */

enum mark_kind { BODY = 1, PATCHED_BODY, OPS, DIRECT, VALUE, BEGIN, GRAPH_ENTRY, GRAPH_RETURN, PROGRAM };

struct mark {
	uint64_t time;
	unsigned place; /* among the marks of one recorder */
	enum mark_kind kind;
	unsigned number, count; /* a slot, a stub, a depth; how many words */
	unsigned long address;
	const char *user;
	const void *words;
};

static struct mark marks[4096];
static unsigned marks_used;

PART void add_mark(uint64_t time, struct mark mark)
{
	if (marks_used == COUNT(marks))
		cannot_run("More happened in one call than there is room for.");
	mark.time = time;
	mark.place = marks_used;
	marks[marks_used++] = mark;
}

PART int by_time(const void *left, const void *right)
{
	const struct mark *a = left, *b = right;

	if (a->time != b->time)
		return a->time > b->time ? 1 : -1;
	return (a->place > b->place) - (a->place < b->place);
}

/* A record of the module's log, which its log.c writes. */
struct record {
	uint64_t time;
	uint16_t kind, count;
	uint32_t number;
	uint64_t ip, words[];
};

/* The seed has no programs. */
PART const char *spell_program(unsigned long address)
{
	(void)address;
	return NULL;
}

/* The module's log: bytes that hold records, records that found no room, the records. The marks point into it. */
PART void read_log(char *log, size_t size)
{
	const uint64_t *head = (const void *)log;
	size_t place = 16;

	if (size < 16 || head[1])
		cannot_run("More happened in one call than the module's log has room for.");
	while (place + sizeof(struct record) <= 16 + head[0]) {
		const struct record *record = (const void *)(log + place);

		add_mark(record->time, (struct mark){ .kind = record->kind, .number = record->number,
						      .count = record->count, .address = record->ip,
						      .words = record->words });
		place += sizeof(*record) + 8 * record->count;
	}
}

/* The two spellings of a trace: that of the seeds, and one that says what each event saw. */
struct spelled {
	struct text brief, full;
};

PART __attribute__((format(printf, 2, 3))) void add_word(struct spelled *spelled, const char *format, ...)
{
	va_list arguments;
	char word[128];

	va_start(arguments, format);
	vsnprintf(word, sizeof(word), format, arguments);
	va_end(arguments);
	append(&spelled->brief, "%s%s", spelled->brief.used ? " " : "", word);
	append(&spelled->full, "%s%s", spelled->full.used ? " " : "", word);
}

PART uint64_t narrow_to(uint64_t word, int bytes)
{
	return bytes < 8 ? word & ((1ull << 8 * bytes) - 1) : word;
}

/* What the caller reads from the return register, by the function's return type. */
PART void add_value(struct spelled *spelled, const struct function *function, uint64_t word)
{
	int bits = 8 * function->returns;

	word = narrow_to(word, function->returns);
	if (function->returns_signed && bits && bits < 64 && word >> (bits - 1))
		word |= ~0ull << bits;
	add_word(spelled, function->returns_signed ? "=%" PRId64 : "=%" PRIu64, word);
}

PART void add_body(struct spelled *spelled, const struct mark *mark)
{
	const uint64_t *words = mark->words;

	add_word(spelled, mark->kind == BODY ? "body" : "body:patched");
	append(&spelled->full, "(");
	for (unsigned i = 0; i < mark->count; i++)
		append(&spelled->full, "%s%" PRIu64, i ? "," : "", words[i]);
	append(&spelled->full, ")");
}

PART void prepare_recorders(void)
{
}

PART void read_recorders(void)
{
}

PART void add_program(struct spelled *spelled, const void *run, const struct function *function)
{
	(void)spelled, (void)run, (void)function;
}

PART void add_graph(struct spelled *spelled, const struct mark *mark)
{
	add_word(spelled, mark->kind == GRAPH_ENTRY ? "graph>%s" : "<graph:%s", mark->user);
	append(&spelled->full, "(%s,%u)", spell_function(mark->address), mark->number);
}

/* Folds the marks in the order of time; a body's or a program's own calls stand in brackets. */
PART void fold(struct spelled *spelled, int outermost)
{
	int stack[64] = { outermost }, depth = 0;

	qsort(marks, marks_used, sizeof(*marks), by_time);
	for (const struct mark *mark = marks; mark < marks + marks_used; mark++) {
		bool is_patched;
		int callee;

		switch (mark->kind) {
		case BODY:
		case PATCHED_BODY:
			add_body(spelled, mark);
			break;
		case OPS:
			add_word(spelled, "ops:%s", nth(ops_names, COUNT(ops_names), mark->number));
			break;
		case DIRECT:
			add_word(spelled, "direct:%s", nth(tramp_names, COUNT(tramp_names), mark->number));
			break;
		case GRAPH_ENTRY:
		case GRAPH_RETURN:
			add_graph(spelled, mark);
			break;
		case PROGRAM:
			add_program(spelled, mark->words, &functions[stack[depth]]);
			break;
		case BEGIN:
			callee = find_function(mark->address, &is_patched);
			if (callee < 0 || depth + 1 == COUNT(stack))
				cannot_run("A call leads where the seed has no function.");
			add_word(spelled, "%s[", functions[callee].name);
			stack[++depth] = callee;
			break;
		case VALUE:
			add_value(spelled, &functions[stack[depth]], *(const uint64_t *)mark->words);
			if (depth) {
				add_word(spelled, "]");
				depth--;
			}
			break;
		}
	}
}

PART void begin_call(void)
{
	marks_used = 0;
	command(COMMAND_CLEAR, "", NULL, 0);
	prepare_recorders();
}

/* What ran since the call began. `brief` is what the seed expects, or NULL. */
PART void end_call(int function, const char *brief, const char *full)
{
	struct spelled spelled = { 0 };
	const char *warning;
	size_t size;
	char *log = need(CONTROL, &size);

	read_log(log, size);
	read_recorders();
	fold(&spelled, function);
	warning = look_for_warning();
	compare("the kernel's log", "", warning);
	if (brief)
		compare("the call", brief, content(&spelled.brief));
	if (full)
		compare("what the call's events saw", full, content(&spelled.full));
	free(spelled.brief.bytes);
	free(spelled.full.bytes);
	free(log);
}

/* Calls a function with these registers and words on the stack. */
PART void call(int function, const uint64_t *words, uint32_t count, const char *brief, const char *full)
{
	if (functions[function].address <= NOWHERE) {
		compare("the call", brief ? brief : full, "absent");
		return;
	}
	begin_call();
	if (command(COMMAND_CALL, "", words, count))
		cannot_run("The module does not make the call.");
	end_call(function, brief, full);
}

static void run(void)
{
	begin(6, "ftrace_ops o1");
	outcome(command(COMMAND_OPS_DECLARE, "", WORDS(0, 0)), "0");
	sites("");

	begin(7, "ftrace_set_notrace o1 foo2");
	outcome(command(COMMAND_OPS_NOTRACE, "foo2", WORDS(0, 0)), "0");
	sites("");

	begin(8, "update_ftrace_direct_add o1 foo1=T1 foo2=T2 foo3=T3");
	outcome(command(COMMAND_HASH_ADD, "", WORDS(0, at(FN_foo1), 0, at(FN_foo2), 1, at(FN_foo3), 2)), "0");
	sites("foo1 (1) RD direct:T1 direct-->direct:T1\n"
	      "foo3 (1) RD direct:T3 direct-->direct:T3\n");

	begin(9, "site foo2");
	site(FN_foo2, "nop");

	begin(10, "call foo2 1 2");
	call(FN_foo2, WORDS(at(FN_foo2), 1, 2, 0, 0, 0, 0), "body =3", "body(1,2) =3");

	begin(11, "update_ftrace_direct_del o1 foo3=T3");
	outcome(command(COMMAND_HASH_DEL, "", WORDS(0, at(FN_foo3), 2)), "0");
	sites("foo1 (1) RD direct:T1 direct-->direct:T1\n");

	begin(12, "site foo2");
	site(FN_foo2, "nop");

	begin(13, "call foo2 1 2");
	call(FN_foo2, WORDS(at(FN_foo2), 1, 2, 0, 0, 0, 0), "body =3", "body(1,2) =3");
}

int main(int argc, char **argv)
{
	struct utsname system;
	cpu_set_t first;

	setvbuf(stdout, NULL, _IONBF, 0);
	if (argc > 1)
		directory = argv[1];
	/* One recorder keeps a buffer for each CPU. */
	CPU_ZERO(&first);
	CPU_SET(0, &first);
	sched_setaffinity(0, sizeof(first), &first);
	uname(&system);
	open_log();
	load_modules();
	run();
	printf("%s does as expected in 8 steps\n", system.release);
	return AGREES;
}

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

/* Users of the graph tracer: instances of ftrace's own, or where those have none the tracer at the top. */

#define USERS 4

static struct {
	char directory[64];
	const char *user; /* NULL: nobody's */
} tracers[USERS];
static int tracers_used;

static struct {
	const char *function, *notrace;
	int depth;
} limits;

static struct event_format {
	int id, address, depth, depth_bytes;
	bool returns;
} event_formats[3];
static int formats_used;
static size_t page_bytes;

PART long write_trace(const char *directory, const char *file, const char *text, int flags)
{
	char path[512];

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	return write_file(path, text, strlen(text), flags);
}

/* The offset and the size of a field, as a format file tells them. */
PART int find_field(const char *format, const char *name, int *size)
{
	char wanted[64];
	const char *field;
	int offset = -1;

	snprintf(wanted, sizeof(wanted), " %s;", name);
	field = strstr(format, wanted);
	if (!field) {
		snprintf(wanted, sizeof(wanted), " %s[", name);
		field = strstr(format, wanted);
	}
	field = field ? strstr(field, "offset:") : NULL;
	if (!field || sscanf(field, "offset:%d;%*[ \t]size:%d", &offset, size) != 2)
		return -1;
	return offset;
}

PART void read_event_format(const char *name, bool returns)
{
	struct event_format *format = &event_formats[formats_used];
	char path[128], *text, *id;
	int size;

	snprintf(path, sizeof(path), TRACING "/events/ftrace/%s/format", name);
	text = read_whole(path, NULL);
	id = text ? strstr(text, "ID: ") : NULL;
	if (id) {
		format->id = atoi(id + 4);
		format->address = find_field(text, "func", &size);
		format->depth = find_field(text, "depth", &format->depth_bytes);
		format->returns = returns;
		formats_used += format->address >= 0 && format->depth >= 0;
	}
	free(text);
}

PART void prepare_tracer(const char *directory)
{
	long failed = write_trace(directory, "trace_clock", "mono", 0);

	if (!failed)
		failed = write_trace(directory, "buffer_size_kb", "64", 0);
	if (failed)
		cannot_run("The tracer in %s cannot be set up: %s.", directory, spell_error(failed));
	snprintf(tracers[tracers_used++].directory, sizeof(tracers[0].directory), "%s", directory);
}

PART void prepare_graph(void)
{
	char *header = need(TRACING "/events/header_page", NULL);
	int size = 0, data = find_field(header, "data", &size);

	free(header);
	page_bytes = data + size;
	read_event_format("funcgraph_entry", false);
	read_event_format("fgraph_retaddr_entry", false);
	read_event_format("funcgraph_exit", true);
	if (formats_used < 2 || data != 16)
		cannot_run("The kernel has no graph tracer, or the pages of its buffer are not known.");
	for (int i = 0; i < USERS; i++) {
		char directory[64], path[512], *available;

		snprintf(directory, sizeof(directory), TRACING "/instances/massattach%d", i);
		if (mkdir(directory, 0755) && errno != EEXIST)
			break;
		snprintf(path, sizeof(path), "%s/available_tracers", directory);
		available = need(path, NULL);
		if (!strstr(available, "function_graph")) {
			free(available);
			rmdir(directory);
			break;
		}
		free(available);
		prepare_tracer(directory);
	}
	if (!tracers_used)
		prepare_tracer(TRACING);
}

/* Sets a filter file to one pattern, or to nothing. What was taken has its effect when the file is closed. */
PART long set_pattern(const char *directory, const char *file, const char *pattern)
{
	char path[512], text[256];
	long value = 0;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", directory, file);
	snprintf(text, sizeof(text), "%s ", pattern ? pattern : "");
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (pattern && write(fd, text, strlen(text)) < 0)
		value = -errno;
	if (close(fd) && !value)
		value = -errno;
	return value;
}

PART bool same(const char *left, const char *right)
{
	return left == right || (left && right && !strcmp(left, right));
}

/* These are the same for all users; what is refused is undone. */
PART long set_limits(const char *function, const char *notrace, int depth)
{
	char text[16];
	long value = 0;

	if (!same(function, limits.function))
		value = set_pattern(TRACING, "set_graph_function", function);
	if (!value && !same(notrace, limits.notrace))
		value = set_pattern(TRACING, "set_graph_notrace", notrace);
	if (value) {
		set_pattern(TRACING, "set_graph_function", limits.function);
		set_pattern(TRACING, "set_graph_notrace", limits.notrace);
		return value;
	}
	snprintf(text, sizeof(text), "%d", depth);
	if (depth != limits.depth)
		write_trace(TRACING, "max_graph_depth", text, 0);
	limits.function = function;
	limits.notrace = notrace;
	limits.depth = depth;
	return 0;
}

PART long register_ftrace_graph(const char *user, const char *filter, const char *function, const char *notrace,
				int depth)
{
	long value = -EBUSY;

	for (int i = 0; i < tracers_used; i++) {
		if (tracers[i].user)
			continue;
		value = set_pattern(tracers[i].directory, "set_ftrace_filter", filter);
		if (!value)
			value = set_limits(function, notrace, depth);
		if (!value)
			value = write_trace(tracers[i].directory, "current_tracer", "function_graph", 0);
		if (!value)
			tracers[i].user = user;
		return value;
	}
	return value;
}

PART long unregister_ftrace_graph(const char *user)
{
	for (int i = 0; i < tracers_used; i++)
		if (tracers[i].user && !strcmp(tracers[i].user, user)) {
			tracers[i].user = NULL;
			return write_trace(tracers[i].directory, "current_tracer", "nop", 0);
		}
	return -EBADF;
}

PART void add_event(const char *user, uint64_t time, const uint8_t *record)
{
	uint16_t id;

	memcpy(&id, record, sizeof(id));
	for (int i = 0; i < formats_used; i++) {
		const struct event_format *format = &event_formats[i];
		unsigned long address;
		uint32_t depth = 0;

		if (format->id != id)
			continue;
		memcpy(&address, record + format->address, sizeof(address));
		memcpy(&depth, record + format->depth, format->depth_bytes < 4 ? format->depth_bytes : 4);
		add_mark(time, (struct mark){ .kind = format->returns ? GRAPH_RETURN : GRAPH_ENTRY, .user = user,
					      .address = address, .number = depth });
	}
}

/* The events of a page of trace_pipe_raw; see include/linux/ring_buffer.h. */
PART void read_page(const char *user, const uint8_t *page, size_t size)
{
	uint64_t time, commit;
	size_t place = 16, end;

	memcpy(&time, page, sizeof(time));
	memcpy(&commit, page + 8, sizeof(commit));
	end = place + (commit & 0x3fffffff);
	if (commit & 1ul << 31)
		cannot_run("The graph tracer lost events.");
	while (place + 8 <= end + 4 && end <= size) {
		uint32_t word, array;

		memcpy(&word, page + place, sizeof(word));
		memcpy(&array, page + place + 4, sizeof(array));
		switch (word & 31) {
		case 29: /* padding */
			if (!(word >> 5))
				return;
			place += 4 + array;
			break;
		case 30: /* time extend */
			time += (word >> 5) | (uint64_t)array << 27;
			place += 8;
			break;
		case 31: /* time stamp, of 59 bits */
			time = ((word >> 5) | (uint64_t)array << 27) | (time >> 59 << 59);
			place += 8;
			break;
		default:
			time += word >> 5;
			add_event(user, time, page + place + (word & 31 ? 4 : 8));
			place += 4 + (word & 31 ? 4 * (word & 31) : (array + 3) / 4 * 4);
		}
	}
}

/* The events of all users since the last look. A tracer cannot be switched while its buffer is open. */
PART void read_graph(bool drop)
{
	uint8_t *page = malloc(page_bytes + 8);

	for (int i = 0; page && i < tracers_used; i++) {
		char path[512];
		ssize_t got;
		int fd;

		snprintf(path, sizeof(path), "%s/per_cpu/cpu0/trace_pipe_raw", tracers[i].directory);
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		while (fd >= 0 && (got = read(fd, page, page_bytes)) > 0)
			if (tracers[i].user && !drop)
				read_page(tracers[i].user, page, got);
		if (fd >= 0)
			close(fd);
	}
	free(page);
}

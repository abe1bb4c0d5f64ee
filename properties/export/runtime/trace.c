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

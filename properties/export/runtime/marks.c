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

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

/* Every site of the seed's functions that is not a plain nop, a line each. */
PART long ftrace_enabled(const char *value)
{
	return write_file("/proc/sys/kernel/ftrace_enabled", value, strlen(value), 0);
}

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

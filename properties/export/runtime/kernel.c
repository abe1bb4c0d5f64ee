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

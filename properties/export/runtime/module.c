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

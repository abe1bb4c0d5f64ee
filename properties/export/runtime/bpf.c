/* BPF: programs that write down what they see, and their links. */

#define RUN_BITS 9
#define RUNS 255
#define HEADER_BYTES 512
#define NESTED_AT 16
#define SLOTS 12

/* What a run of a program leaves in the map's value, behind the header. */
struct run {
	uint64_t time, instance, second, ip, count, cookie, session, ret, ret_value;
	struct {
		uint64_t answer, value;
	} arguments[SLOTS + 1];
	uint64_t rest[29];
};

_Static_assert(sizeof(struct run) == 1 << RUN_BITS, "a run's number is shifted to its place");

/* The header: how many runs there were; then of each program that calls a function: its address, and whether it runs. */
static struct {
	uint64_t runs, pad;
	struct {
		uint64_t address, under_way;
	} nested[(HEADER_BYTES - NESTED_AT) / 16];
	struct run run[RUNS];
} *map;

static int map_fd;

/* A program in the kernel: loaded for a function, or (from -1 down) for all functions of a home. */
static struct instance {
	int program, place, fd;
	unsigned long address;
	bool stays;
} instances[512];
static int instances_used;

static struct {
	int fd, instance;
} link_table[COUNT(link_names)];

PART long bpf(int command, const void *attr, unsigned size)
{
	long value = syscall(SYS_bpf, command, attr, size);

	return value < 0 ? -errno : value;
}

PART void make_map(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = 4,
		.value_size = sizeof(*map),
		.max_entries = 1,
		.map_flags = BPF_F_MMAPABLE,
	};

	map_fd = bpf(BPF_MAP_CREATE, &attr, sizeof(attr));
	if (map_fd < 0)
		cannot_run("The kernel makes no array map that can be mapped: %s.", spell_error(map_fd));
	map = mmap(NULL, sizeof(*map), PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
	if (map == MAP_FAILED)
		cannot_run("The kernel does not map an array map: %s.", strerror(errno));
}

/* The descriptor of a home's BTF: 0 for vmlinux's. */
PART int open_btf(int home)
{
	uint32_t id = 0;

	if (home == VMLINUX || btf_fds[home])
		return btf_fds[home];
	for (;;) {
		union bpf_attr attr = { .start_id = id };
		struct bpf_btf_info info = { 0 };
		char name[64] = "";
		int fd;

		if (bpf(BPF_BTF_GET_NEXT_ID, &attr, sizeof(attr)) < 0)
			return 0;
		id = attr.next_id;
		attr = (union bpf_attr){ .btf_id = id };
		fd = bpf(BPF_BTF_GET_FD_BY_ID, &attr, sizeof(attr));
		if (fd < 0)
			continue;
		info.name = (uint64_t)name;
		info.name_len = sizeof(name);
		attr = (union bpf_attr){ .info = { .bpf_fd = fd, .info_len = sizeof(info), .info = (uint64_t)&info } };
		if (!bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)) && !strcmp(name, homes[home].name))
			return btf_fds[home] = fd;
		close(fd);
	}
}

/* Instructions. */

static struct bpf_insn code[512];
static int length;

PART struct bpf_insn *emit(uint8_t opcode, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
	code[length] = (struct bpf_insn){ opcode, dst, src, off, imm };
	return &code[length++];
}

PART void move(int dst, int64_t value)
{
	if (value == (int32_t)value) {
		emit(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value);
		return;
	}
	emit(BPF_LD | BPF_DW | BPF_IMM, dst, 0, 0, value);
	emit(0, 0, 0, 0, value >> 32);
}

PART void copy(int dst, int src)
{
	emit(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

PART void load_value(int dst, int offset)
{
	emit(BPF_LD | BPF_DW | BPF_IMM, dst, BPF_PSEUDO_MAP_VALUE, 0, map_fd);
	emit(0, 0, 0, 0, offset);
}

PART void keep(size_t offset)
{
	emit(BPF_STX | BPF_MEM | BPF_DW, 7, 0, offset, 0);
}

PART void store(int base, int offset, int32_t value)
{
	emit(BPF_ST | BPF_MEM | BPF_DW, base, 0, offset, value);
}

/* Calls a helper with the context as its first argument, and keeps the answer. */
PART void ask(int helper, size_t answer)
{
	copy(1, 6);
	emit(BPF_JMP | BPF_CALL, 0, 0, 0, helper);
	keep(answer);
}

PART void point_to(int dst, size_t offset)
{
	copy(dst, 7);
	emit(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, offset);
}

PART void emit_session(int number)
{
	copy(1, 6);
	emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, walk_btf(&vmlinux_btf, "bpf_session_is_return"));
	emit(BPF_ALU64 | BPF_AND | BPF_K, 0, 0, 0, 1);
	copy(8, 0);
	keep(offsetof(struct run, second));
	copy(1, 6);
	emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 0, walk_btf(&vmlinux_btf, "bpf_session_cookie"));
	emit(BPF_LDX | BPF_MEM | BPF_DW, 1, 0, 0, 0);
	emit(BPF_STX | BPF_MEM | BPF_DW, 7, 1, offsetof(struct run, session), 0);
	emit(BPF_JMP | BPF_JNE | BPF_K, 8, 0, 1, 0);
	store(0, 0, number + 1);
}

/* The function whose address the header has is called, unless this program is in such a call. */
PART void emit_nested(int entry)
{
	load_value(9, NESTED_AT + 16 * entry);
	emit(BPF_LDX | BPF_MEM | BPF_DW, 1, 9, 0, 0);
	emit(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 3, 0);
	store(9, 8, 1);
	emit(BPF_JMP | BPF_CALL, 0, BPF_PSEUDO_KFUNC_CALL, 1, nested_kfunc);
	store(9, 8, 0);
}

PART void emit_skip_if_nested(int entry)
{
	load_value(1, NESTED_AT + 16 * entry);
	emit(BPF_LDX | BPF_MEM | BPF_DW, 0, 1, 8, 0);
	emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2, 0);
	move(0, 0);
	emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

PART void emit_program(const struct program *program, int number, int slots)
{
	struct bpf_insn *full;
	int body;

	length = 0;
	copy(6, 1);
	if (program->stops)
		emit_stop(program);
	if (program->calls >= 0)
		emit_skip_if_nested(program->nested);
	load_value(1, 0);
	move(0, 1);
	emit(BPF_STX | BPF_ATOMIC | BPF_DW, 1, 0, 0, BPF_ADD | BPF_FETCH);
	full = emit(BPF_JMP | BPF_JGE | BPF_K, 0, 0, 0, RUNS);
	body = length;
	emit(BPF_ALU64 | BPF_LSH | BPF_K, 0, 0, 0, RUN_BITS);
	load_value(7, HEADER_BYTES);
	emit(BPF_ALU64 | BPF_ADD | BPF_X, 7, 0, 0, 0);
	emit(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ktime_get_ns);
	keep(offsetof(struct run, time));
	store(7, offsetof(struct run, instance), number);
	store(7, offsetof(struct run, second), 0);
	if (program->func_ip)
		ask(BPF_FUNC_get_func_ip, offsetof(struct run, ip));
	ask(BPF_FUNC_get_func_arg_cnt, offsetof(struct run, count));
	ask(BPF_FUNC_get_attach_cookie, offsetof(struct run, cookie));
	point_to(2, offsetof(struct run, ret_value));
	ask(BPF_FUNC_get_func_ret, offsetof(struct run, ret));
	for (int i = 0; i <= slots && i <= SLOTS; i++) {
		move(2, i);
		point_to(3, offsetof(struct run, arguments[i].value));
		ask(BPF_FUNC_get_func_arg, offsetof(struct run, arguments[i].answer));
	}
	if (!strcmp(program->kind, "fsession"))
		emit_session(number);
	if (program->calls >= 0)
		emit_nested(program->nested);
	full->off = length - body;
	move(0, program->returns);
	emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* Loads a program for a function of a BTF, or with the id 0 for several: its descriptor, or -errno. */
PART long load(int number, const struct program *program, int slots, uint32_t btf_id, int btf_fd)
{
	int32_t fd_array[] = { 0, program->calls >= 0 ? open_btf(CORE) : 0 };
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_TRACING,
		.insns = (uint64_t)code,
		.license = (uint64_t)"GPL",
		.prog_flags = program->sleepable ? BPF_F_SLEEPABLE : 0,
		.expected_attach_type = program->attach_type,
		.attach_btf_id = btf_id,
		.attach_btf_obj_fd = btf_fd,
		.fd_array = program->calls >= 0 ? (uint64_t)fd_array : 0,
	};

	read_vmlinux_btf();
	emit_program(program, number, slots);
	attr.insn_cnt = length;
	snprintf(attr.prog_name, sizeof(attr.prog_name), "m%d", number);
	return bpf(BPF_PROG_LOAD, &attr, sizeof(attr));
}

PART unsigned long program_address(int fd)
{
	uint64_t address = 0;
	struct bpf_prog_info info = { .nr_jited_ksyms = 1, .jited_ksyms = (uint64_t)&address };
	union bpf_attr attr = { .info = { .bpf_fd = fd, .info_len = sizeof(info), .info = (uint64_t)&info } };

	bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr));
	if (!address)
		cannot_run("The kernel does not tell where it put a program: bpf_jit_enable has to be 1.");
	return address;
}

/* The instance of a program for a function, or from -1 down for a home; it is loaded if there is none: -errno. */
PART long instance_of(int number, int place)
{
	const struct program *program = &programs[number];
	int home = place < 0 ? -1 - place : functions[place].home;
	uint32_t btf_id = place < 0 ? 0 : functions[place].btf_id;
	struct instance *instance;
	long fd;

	for (int i = 0; i < instances_used; i++)
		if (instances[i].program == number && instances[i].place == place && instances[i].fd >= 0)
			return i;
	if (instances_used == COUNT(instances))
		cannot_run("The seed loads more programs than there is room for.");
	fd = load(instances_used, program, place < 0 ? SLOTS : functions[place].slots, btf_id, open_btf(home));
	if (fd < 0)
		return fd;
	instance = &instances[instances_used];
	*instance = (struct instance){ .program = number, .place = place, .fd = fd, .address = program_address(fd) };
	return instances_used++;
}

/* BPF_PROG_LOAD of a program that belongs to one function, or to all functions of a home: it stays. */
PART long bpf_prog_load(int number, int place)
{
	long instance = instance_of(number, place);

	if (instance < 0)
		return instance;
	instances[instance].stays = true;
	return 0;
}

/* BPF_PROG_LOAD of a program without a target, which is loaded for each function that it is attached to: a trial. */
PART long bpf_prog_try(int number, const char *target)
{
	long fd;

	read_vmlinux_btf();
	fd = load(0, &(struct program){ .kind = programs[number].kind, .attach_type = programs[number].attach_type,
					.returns = programs[number].returns, .calls = -1 },
		  1, walk_btf(&vmlinux_btf, target), 0);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* Closes programs that were loaded for one function only, and that no link uses. */
PART void release(void)
{
	for (int i = 0; i < instances_used; i++) {
		bool used = instances[i].stays || instances[i].fd < 0;

		for (size_t j = 0; j < COUNT(link_table); j++)
			used |= link_table[j].fd > 0 && link_table[j].instance == i;
		if (used)
			continue;
		close(instances[i].fd);
		instances[i].fd = -1;
	}
}

PART long finish_link(int number, int instance, long fd)
{
	if (fd >= 0) {
		link_table[number].fd = fd;
		link_table[number].instance = instance;
		return 0;
	}
	release();
	return fd;
}

/* BPF_RAW_TRACEPOINT_OPEN. */
PART long bpf_raw_tracepoint_open(int number, int program, int place)
{
	long instance = instance_of(program, place), fd;
	union bpf_attr attr = { 0 };

	if (instance < 0)
		return instance;
	attr.raw_tracepoint.prog_fd = instances[instance].fd;
	refuse_charge(true);
	fd = bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, sizeof(attr));
	refuse_charge(false);
	return finish_link(number, instance, fd);
}

/* BPF_LINK_CREATE for one function, with a cookie. */
PART long bpf_link_create(int number, int program, int place, uint64_t cookie)
{
	long instance = instance_of(program, place), fd;
	union bpf_attr attr = { 0 };

	if (instance < 0)
		return instance;
	attr.link_create.prog_fd = instances[instance].fd;
	attr.link_create.attach_type = programs[program].attach_type;
	attr.link_create.tracing.cookie = cookie;
	refuse_charge(true);
	fd = bpf(BPF_LINK_CREATE, &attr, sizeof(attr));
	refuse_charge(false);
	return finish_link(number, instance, fd);
}

/* The head of union bpf_attr for BPF_LINK_CREATE with link_create.tracing_multi, which older headers lack. */
struct multi_link {
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t ids, cookies;
	uint32_t count, pad;
};

struct target {
	int function;
	uint64_t cookie;
};

/* BPF_LINK_CREATE for many functions of one BTF, with a cookie for each or for none. */
PART long bpf_link_create_multi(int number, int program, int place, bool cookies, const struct target *targets,
				uint32_t count)
{
	long instance = instance_of(program, place), fd = -ENOMEM;
	uint32_t *ids = calloc(count, sizeof(*ids));
	uint64_t *values = calloc(count, sizeof(*values));

	if (instance >= 0 && ids && values) {
		struct multi_link attr = {
			.prog_fd = instances[instance].fd,
			.attach_type = programs[program].attach_type,
			.ids = (uint64_t)ids,
			.cookies = cookies ? (uint64_t)values : 0,
			.count = count,
		};

		for (uint32_t i = 0; i < count; i++) {
			ids[i] = functions[targets[i].function].btf_id;
			values[i] = targets[i].cookie;
		}
		refuse_charge(true);
		fd = bpf(BPF_LINK_CREATE, &attr, sizeof(attr));
		refuse_charge(false);
	}
	free(ids);
	free(values);
	return instance < 0 ? instance : finish_link(number, instance, fd);
}

/* Closes a link's only descriptor. */
PART long bpf_link_detach(int number)
{
	long value;

	refuse_charge(true);
	value = close(link_table[number].fd) ? -errno : 0;
	refuse_charge(false);
	link_table[number].fd = 0;
	release();
	return value;
}

/* KIND:PROG of the program whose code is at an address, the newest that was loaded there; NULL if there is none. */
PART const char *spell_program(unsigned long address)
{
	static char text[64];

	for (int i = instances_used; i-- > 0;)
		if (instances[i].address == address) {
			const struct program *program = &programs[instances[i].program];

			snprintf(text, sizeof(text), "%s:%s", program->kind, program->name);
			return text;
		}
	return NULL;
}

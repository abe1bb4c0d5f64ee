// SPDX-License-Identifier: MIT
/*
 * {{ name }}
 *
{% if about %}
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
 *
{% endif %}
 * The rules are those of {{ semantics }}. Build this and its modules by `make` beside it, and run it as root in a virtual
 * machine that was just booted: the modules stay, and what the seed attaches goes only with the machine.
 *
 * Usage: {{ name }} [DIRECTORY OF THE MODULES]
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
{% if tasks %}
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
{% endif %}
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{% if tasks %}
#include <sys/ioctl.h>
{% endif %}
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
{% if tasks %}
#include <time.h>
{% endif %}
#include <unistd.h>

#define TRACING "/sys/kernel/tracing"
#define ENDBR_BYTES 4
#define NOWHERE 1ul /* where no function is; a hash has 0 in place of functions that have gone */

/* The commands of the module, places in the table `verbs` of its core.c. */
enum {
{% for command in commands %}
	COMMAND_{{ command }},
{% endfor %}
};

/* Who has functions: the kernel, and modules. `fmodret` are those that fmod_ret programs may attach to. */
enum { VMLINUX, CORE{% for module in modules[1:] %}, HOME_{{ module.name }}{% endfor %} };

static const struct {
	const char *name, *const *fmodret;
} homes[] = {
	{ NULL, NULL },
{% for module in modules %}
	{ {{ module.name | c }}, (const char *const[]){ {% for each in module.fmodret %}{{ each | c }}, {% endfor %}NULL } },
{% endfor %}
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
{% for function in functions %}
	{ {{ function.name | c }}, {{ function.symbol | c }}, {{ function.home }}, {{ function.nth }}, {{ function.widths | length }}, { {{ function.widths | join(", ") or 0 }} }, {{ function.returns }}, {{ function.returns_signed | c }}, NOWHERE, NOWHERE, 0 },
{% endfor %}
};

enum {
{% for function in functions %}
	{{ function.constant }},
{% endfor %}
};

/* The names of ops by slot, and of direct trampolines by stub. */
static const char *const ops_names[] = { {% for each in ops %}{{ each | c }}, {% endfor %}NULL };
static const char *const tramp_names[] = { {% for each in tramps %}{{ each | c }}, {% endfor %}NULL };
{% if programs %}

/* Programs. `calls` is a function that each run calls, or -1; `nested` its place in the map's header; in one that `stops` tasks can
 * sleep. */
static const struct program {
	const char *name, *kind;
	int attach_type;
	bool sleepable, func_ip;
	int64_t returns;
	int calls, nested;
	bool stops;
} programs[] = {
{% for program in programs %}
	{ {{ program.name | c }}, {{ program.kind | c }}, {{ program.attach_type }}, {{ program.sleepable | c }}, {{ program.func_ip | c }}, {{ program.returns | c }}, {{ program.calls }}, {{ program.nested }}, {{ program.stops | c }} },
{% endfor %}
};

enum {
{% for program in programs %}
	{{ program.constant }},
{% endfor %}
};
{% if links %}

enum {
{% for link in links %}
	LINK_{{ link | identifier }},
{% endfor %}
};
{% endif %}

static const char *const link_names[] = { {% for each in links %}{{ each | c }}, {% endfor %}NULL };
{% endif %}

static uint32_t nested_kfunc __attribute__((unused));

{% include "core.c" %}

{% include "kernel.c" %}

{% include "btf.c" %}

{% include "module.c" %}

PART const char *spell_program(unsigned long address);

{% include "sites.c" %}

{% include "trace.c" %}
{% if programs %}

PART void emit_stop(const struct program *program);

{% include "bpf.c" %}
{% else %}

{% include "nobpf.c" %}
{% endif %}
{% if graph %}

{% include "graph.c" %}
{% endif %}

{% include "marks.c" %}
{% if programs %}

{% include "runs.c" %}
{% endif %}

PART void prepare_recorders(void)
{
{% if programs %}
	set_nested();
{% endif %}
{% if graph %}
	read_graph(true);
{% endif %}
}

PART void read_recorders(void)
{
{% if programs %}
	read_runs();
{% endif %}
{% if graph %}
	read_graph(false);
{% endif %}
}

PART void add_program(struct spelled *spelled, const void *run, const struct function *function)
{
{% if programs %}
	add_run(spelled, run, function);
{% else %}
	(void)spelled, (void)run, (void)function;
{% endif %}
}

{% include "call.c" %}
{% if tasks %}

{% include "tasks.c" %}
{% elif programs %}

PART void emit_stop(const struct program *program)
{
	(void)program;
}
{% endif %}

static void run(void)
{
{% for action in actions %}
	begin({{ action.line }}, {{ action.text | c }});
{% for statement in action.statements %}
	{{ statement | c }};
{% endfor %}
{% if not loop.last %}

{% endif %}
{% endfor %}
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
{% if programs %}
	make_map();
{% endif %}
{% if tasks %}
	prepare_tasks();
{% endif %}
{% if graph %}
	prepare_graph();
{% endif %}
	run();
	printf("%s does as expected in {{ actions | length }} step{{ "" if actions | length == 1 else "s" }}\n", system.release);
	return AGREES;
}

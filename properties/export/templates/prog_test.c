// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The seed {{ seed }}, by the rules of {{ semantics }}.
{% if about %}
 *
{% for line in about %}
 * {{ line | comment }}
{% endfor %}
{% endif %}
 *
 * The functions of the seed are the kernel's own for tests. Each of them is called whenever one is, so that of the
 * programs that ran those of one function are compared, in their order.
 */
#include <test_progs.h>
#include "{{ name }}.skel.h"

#define NUMBERS(...) (const __u32[]){ 0, ##__VA_ARGS__ }, sizeof((const __u32[]){ 0, ##__VA_ARGS__ }) / sizeof(__u32)

enum {
{% for link in links %}
	LINK_{{ link | identifier }},
{% endfor %}
	LINKS,
};

static int links[LINKS];

static int try_attach(struct bpf_program *program, enum bpf_attach_type type, __u64 cookie)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts);

	opts.tracing.cookie = cookie;
	if (cookie)
		return bpf_link_create(bpf_program__fd(program), 0, type, &opts);
	return bpf_raw_tracepoint_open(NULL, bpf_program__fd(program));
}

static void attach(int link, struct bpf_program *program, enum bpf_attach_type type, __u64 cookie)
{
	links[link] = try_attach(program, type, cookie);
}

static void detach(int link)
{
	links[link] = close(links[link]) ? -errno : 0;
}

static void run(struct {{ name }} *skel, struct bpf_program *program)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	skel->bss->count = 0;
	ASSERT_OK(bpf_prog_test_run_opts(bpf_program__fd(program), &opts), "test_run");
}

static bool is_among(__u32 number, const __u32 *numbers, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (numbers[i] == number)
			return true;
	return false;
}

/* Of the programs `of`, those that ran are `expected`, in this order. The arrays begin at place 1. */
static void check_runs(struct {{ name }} *skel, const __u32 *of, size_t of_count, const __u32 *expected,
		       size_t expected_count, const char *step)
{
	size_t seen = 1;

	for (__u32 i = 0; i < skel->bss->count && i < ARRAY_SIZE(skel->bss->ran); i++) {
		__u32 number = skel->bss->ran[i];

		if (!is_among(number, of, of_count))
			continue;
		if (seen < expected_count)
			ASSERT_EQ(number, expected[seen], step);
		seen++;
	}
	ASSERT_EQ(seen, expected_count, step);
}

static bool is_traced(const char *function)
{
	FILE *file = fopen("/sys/kernel/tracing/enabled_functions", "r");
	size_t length = strlen(function);
	bool found = false;
	char line[512];

	if (!ASSERT_OK_PTR(file, "enabled_functions"))
		return false;
	while (fgets(line, sizeof(line), file))
		found |= !strncmp(line, function, length) && line[length] == ' ';
	fclose(file);
	return found;
}

void test_{{ name }}(void)
{
	struct {{ name }} *skel = {{ name }}__open_and_load();

	/* A seed uses some of these, and few use all. */
	(void)detach, (void)run, (void)check_runs, (void)is_traced;
	if (!ASSERT_OK_PTR(skel, "open_and_load"))
		return;
	for (int link = 0; link < LINKS; link++)
		links[link] = -1;

{% for action in actions %}
	/* {{ action.text | comment }} */
{% for statement in action.statements %}
	{{ statement | c }};
{% endfor %}

{% endfor %}
	for (int link = 0; link < LINKS; link++)
		if (links[link] > 0)
			close(links[link]);
	{{ name }}__destroy(skel);
}

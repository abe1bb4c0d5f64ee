// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Programs of the seed {{ seed }}: each notes that it ran. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char _license[] SEC("license") = "GPL";

#define MOST 256

__u32 count;
__u32 ran[MOST];

static __always_inline void note(__u32 number)
{
	__u32 place = count++;

	if (place < MOST)
		ran[place] = number;
}
{% for program in programs %}

SEC({{ program.section | c }})
int {{ program.name }}(void *ctx)
{
	note({{ program.number }});
{% if program.func_ip %}
	bpf_get_func_ip(ctx);
{% endif %}
	return {{ program.returns | c }};
}
{% endfor %}

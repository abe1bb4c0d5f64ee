/* BTF: the ids of functions by their names. */

struct btf {
	const char *bytes;
	uint32_t first_id, ids, first_string, strings; /* `ids` and `strings` are how many this blob has */
};

static struct btf vmlinux_btf = { .first_id = 1 };

struct btf_section {
	struct btf_header header;
	uint32_t layouts, layouts_length; /* since 7.1 */
};

/* Words that a type of a kind takes, and each of its members. */
PART uint32_t words_of(const char *blob, uint32_t info)
{
	static const uint8_t fixed[] = { 3, 4, 3, 6, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 3, 3, 4, 3, 3 };
	static const uint8_t each[] = { 0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3 };
	const struct btf_section *section = (const void *)blob;
	uint32_t kind = info >> 24 & 0x7f, members = info & 0xffffff;
	const uint8_t *layout;

	if (kind < COUNT(fixed))
		return fixed[kind] + each[kind] * members;
	if (section->header.hdr_len < sizeof(*section) || 4 * kind >= section->layouts_length)
		cannot_run("The BTF has types of a kind that is not known, %u.", kind);
	layout = (const uint8_t *)blob + section->header.hdr_len + section->layouts + 4 * kind;
	return 3 + layout[0] / 4 + layout[1] / 4 * members;
}

/* The string at an offset, which may be one of vmlinux's. */
PART const char *btf_string(const struct btf *btf, uint32_t offset)
{
	const struct btf *owner = offset < btf->first_string ? &vmlinux_btf : btf;
	const struct btf_header *header = (const void *)owner->bytes;

	return owner->bytes + header->hdr_len + header->str_off + (offset - owner->first_string);
}

/* Walks over the types: the id of a FUNC of a name, or 0. Without a name it counts them. */
PART uint32_t walk_btf(struct btf *btf, const char *name)
{
	const struct btf_header *header = (const void *)btf->bytes;
	const uint32_t *word = (const void *)(btf->bytes + header->hdr_len + header->type_off);
	const uint32_t *end = word + header->type_len / 4;
	uint32_t id = btf->first_id;

	for (; word < end; word += words_of(btf->bytes, word[1]), id++)
		if (name && (word[1] >> 24 & 0x7f) == BTF_KIND_FUNC && !strcmp(btf_string(btf, word[0]), name))
			return id;
	btf->ids = id - btf->first_id;
	btf->strings = header->str_len;
	return 0;
}

PART void read_vmlinux_btf(void)
{
	if (vmlinux_btf.bytes)
		return;
	vmlinux_btf.bytes = need("/sys/kernel/btf/vmlinux", NULL);
	walk_btf(&vmlinux_btf, NULL);
}

/* The BTF of a module, which continues the kernel's. */
PART struct btf module_btf(const char *bytes)
{
	read_vmlinux_btf();
	return (struct btf){
		.bytes = bytes,
		.first_id = vmlinux_btf.first_id + vmlinux_btf.ids,
		.first_string = vmlinux_btf.strings,
	};
}

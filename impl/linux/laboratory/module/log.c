// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * The log: records in the order in which they were reserved, each stamped with the kernel's fast monotonic clock.
 */
#include <linux/atomic.h>
#include <linux/export.h>
#include <linux/fs.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <linux/vmalloc.h>

#include "massattach.h"

#define CAPACITY (4UL << 20)

struct record {
	u64 time;
	u16 kind;
	u16 count;
	u32 number;
	u64 ip;
	u64 words[];
};

/* What a reader of the control file gets: bytes that hold records, records that found no room, the records. */
struct log {
	unsigned long used;
	unsigned long lost;
	u8 records[CAPACITY];
};

static struct log *logged;

static struct record *reserve(size_t size)
{
	unsigned long start;

	do {
		start = READ_ONCE(logged->used);
		if (start + size > CAPACITY) {
			logged->lost++;
			return NULL;
		}
	} while (cmpxchg(&logged->used, start, start + size) != start);
	return (struct record *)&logged->records[start];
}

void massattach_record(u32 kind, u32 number, u64 ip, u32 count, const u64 *words)
{
	u64 time = ktime_get_mono_fast_ns();
	struct record *record = reserve(sizeof(*record) + 8 * count);

	if (!record)
		return;
	record->time = time;
	record->kind = kind;
	record->count = count;
	record->number = number;
	record->ip = ip;
	memcpy(record->words, words, 8 * count);
}

void massattach_body(u32 number, bool patched, u32 count, const u64 *words)
{
	massattach_record(patched ? MASSATTACH_PATCHED : MASSATTACH_BODY, number, 0, count, words);
}
EXPORT_SYMBOL_GPL(massattach_body);

void massattach_begin(const void *function)
{
	massattach_record(MASSATTACH_BEGIN, 0, (unsigned long)function, 0, NULL);
}
EXPORT_SYMBOL_GPL(massattach_begin);

u64 massattach_end(u64 value)
{
	massattach_record(MASSATTACH_VALUE, 0, 0, 1, &value);
	return value;
}
EXPORT_SYMBOL_GPL(massattach_end);

int massattach_log_init(void)
{
	logged = vzalloc(sizeof(*logged));
	return logged ? 0 : -ENOMEM;
}

ssize_t massattach_log_read(char __user *buffer, size_t size, loff_t *position)
{
	return simple_read_from_buffer(buffer, size, position, logged, offsetof(struct log, records) + logged->used);
}

void massattach_log_clear(void)
{
	logged->used = 0;
	logged->lost = 0;
}

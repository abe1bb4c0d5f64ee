// SPDX-License-Identifier: MIT
/*
 * The guest's /init: carries out batches of system calls that arrive on a virtio serial port, and knows nothing else.
 *
 * A frame is one block of memory whose offsets count from its start: a header, its tables, then the data. Every number
 * is little endian. impl/linux/guest/frames.py is the other end, and says in words what the tables mean.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "threads.h"

enum { CHANNEL = 3, KCORE = 4 }; /* the agent's own descriptors; from 5 on they are the harness's */

enum kind { SYSCALL, READ_FILE, WRITE_FILE, READ_MEMORY, SPAWN, JOIN };

struct header {
	uint32_t magic, sent, size; /* bytes on the wire, and bytes in memory: the rest is zero */
	uint32_t entries, pointers, refs, outs, reserved;
};

struct entry {
	uint8_t kind, thread, idle, unused; /* thread: 0, or one more than the number of a thread that carries it out */
	uint32_t number;
	uint64_t argument[6];
};

struct pointer { /* the address of the byte at `target` belongs at `at` */
	uint32_t at, target;
};

struct ref { /* before `entry` runs, the result of entry `of` belongs at `at` */
	uint32_t entry, at, of, width;
};

struct out { /* after `entry` has run, these bytes are part of its reply */
	uint32_t entry, at, size;
};

struct result {
	int64_t value;
	uint64_t nanoseconds;
	uint32_t buffers, reserved;
};

static const uint32_t MAGIC = 0x6d617331;

static struct {
	char *bytes;
	size_t used, room;
} reply;

static char *frame;
static size_t frame_room;

static void die(const char *what)
{
	dprintf(2, "agent: %s: %s\n", what, strerror(errno));
	exit(1); /* the end of init is a panic, which ends the machine */
}

static void *map(void *old, size_t old_size, size_t size)
{
	void *area = old ? mremap(old, old_size, size, MREMAP_MAYMOVE)
			 : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		die("out of memory");
	return area;
}

/* Room for `size` more bytes of the reply, without counting them as used yet. */
static char *reserve(size_t size)
{
	size_t room = reply.room ? reply.room : 1 << 16;

	while (room < reply.used + size)
		room *= 2;
	if (room != reply.room) {
		reply.bytes = map(reply.bytes, reply.room, room);
		reply.room = room;
	}
	return reply.bytes + reply.used;
}

static void append(const void *bytes, size_t size)
{
	memcpy(reserve(size), bytes, size);
	reply.used += size;
}

/* Every system call here is made raw: a library's wrapper would do more than was asked for. */
static int64_t call(long number, const uint64_t *a)
{
	long value = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);

	return value == -1 ? -errno : value;
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000ull + time.tv_nsec;
}

/* One buffer of unknown length in the reply: its size is filled in when it is known. */
static int64_t read_to_end(int fd)
{
	size_t start = reply.used;
	ssize_t got;
	uint32_t size;
	int error;

	append(&(uint32_t){ 0 }, sizeof(uint32_t));
	while ((got = read(fd, reserve(1 << 16), 1 << 16)) > 0)
		reply.used += got;
	error = errno;
	size = reply.used - start - sizeof(size);
	memcpy(reply.bytes + start, &size, sizeof(size));
	return got < 0 ? -error : (int64_t)size;
}

static int64_t read_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int64_t value = -errno;

	if (fd < 0) {
		append(&(uint32_t){ 0 }, sizeof(uint32_t));
		return value;
	}
	value = read_to_end(fd);
	close(fd);
	return value;
}

static int64_t write_file(const char *path, const void *data, size_t size, bool add)
{
	int flags = O_WRONLY | O_CLOEXEC | (add ? O_APPEND : O_TRUNC);
	int fd = open(path, flags);
	int64_t value;

	if (fd < 0 && errno == ENOENT) {
		fd = open(path, flags | O_CREAT, 0644);
		if (fd < 0) /* the kernel's file systems refuse to create with errors of their own */
			return -ENOENT;
	}
	if (fd < 0)
		return -errno;
	value = write(fd, data, size);
	if (value < 0)
		value = -errno;
	close(fd);
	return value;
}

static struct {
	Elf64_Phdr *segments;
	int count;
} kcore;

static void parse_kcore(void)
{
	Elf64_Ehdr header;
	size_t size;

	kcore.count = 0;
	if (pread(KCORE, &header, sizeof(header), 0) != sizeof(header))
		return;
	size = header.e_phnum * sizeof(Elf64_Phdr);
	kcore.segments = realloc(kcore.segments, size);
	if (kcore.segments && pread(KCORE, kcore.segments, size, header.e_phoff) == (ssize_t)size)
		kcore.count = header.e_phnum;
}

static int64_t kcore_offset(uint64_t address)
{
	for (int i = 0; i < kcore.count; i++) {
		const Elf64_Phdr *segment = &kcore.segments[i];

		if (segment->p_type == PT_LOAD && address - segment->p_vaddr < segment->p_memsz)
			return segment->p_offset + (address - segment->p_vaddr);
	}
	return -EFAULT;
}

static int64_t read_memory(uint64_t address, uint32_t size)
{
	int64_t offset = kcore_offset(address);
	ssize_t got = -1;
	uint32_t length;

	if (offset < 0) { /* the map may be of an earlier time */
		parse_kcore();
		offset = kcore_offset(address);
	}
	errno = EFAULT;
	if (offset >= 0)
		got = pread(KCORE, reserve(sizeof(length) + size) + sizeof(length), size, offset);
	length = got < 0 ? 0 : got;
	append(&length, sizeof(length));
	reply.used += length;
	return got < 0 ? -errno : got;
}

/* Descriptors above 2 are not the program's business; its output may go to a file. */
static void become(const char *path, char *const *arguments, const char *output)
{
	static char *const environment[] = { "PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/", NULL };

	if (output) {
		int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0644);

		if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
			return;
	}
	close_range(3, ~0u, 0);
	execve(path, arguments, environment);
}

static int64_t spawn(const char *path, char *const *arguments, const char *output, bool wait)
{
	volatile int error = 0; /* the child of vfork writes to our memory */
	pid_t child = vfork();
	int status;

	if (child == 0) {
		become(path, arguments, output);
		error = errno;
		_exit(127);
	}
	if (child < 0)
		return -errno;
	if (!wait && !error)
		return child;
	if (waitpid(child, &status, 0) < 0)
		return -errno;
	if (error)
		return -error;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int64_t carry_out(const struct entry *entry)
{
	const uint64_t *a = entry->argument;

	switch (entry->kind) {
	case SYSCALL:
		return call(entry->number, a);
	case READ_FILE:
		return read_file((const char *)a[0]);
	case WRITE_FILE:
		return write_file((const char *)a[0], (const void *)a[1], a[2], a[3]);
	case READ_MEMORY:
		return read_memory(a[0], a[1]);
	case SPAWN:
		return spawn((const char *)a[0], (char *const *)a[1], (const char *)a[2], a[3]);
	case JOIN:
		return join_thread(a[0], a[1]);
	}
	errno = EPROTO;
	die("unknown entry");
	return 0;
}

/* Runs beside all others, so that it may not touch the reply. */
static int64_t carry_out_beside(const void *entry)
{
	const uint64_t *a = ((const struct entry *)entry)->argument;

	if (((const struct entry *)entry)->kind == SYSCALL)
		return call(((const struct entry *)entry)->number, a);
	return write_file((const char *)a[0], (const void *)a[1], a[2], a[3]);
}

static void resolve_pointers(char *base)
{
	const struct header *header = (const struct header *)base;
	const struct entry *entries = (const struct entry *)(header + 1);
	const struct pointer *pointers = (const struct pointer *)(entries + header->entries);

	for (uint32_t i = 0; i < header->pointers; i++)
		*(uint64_t *)(base + pointers[i].at) = (uint64_t)(base + pointers[i].target);
}

/* A thread works in a copy of the frame, which goes when the thread is joined. */
static int64_t begin_thread(const struct entry *entry)
{
	size_t size = ((const struct header *)frame)->size;
	char *copy = map(NULL, 0, size);

	errno = EPROTO;
	if (entry->kind != SYSCALL && entry->kind != WRITE_FILE)
		die("an entry that no thread can carry out");
	memcpy(copy, frame, size);
	resolve_pointers(copy);
	entry = (const struct entry *)(copy + ((const char *)entry - frame));
	return start_thread(entry->thread - 1, entry->idle, carry_out_beside, entry, copy, size);
}

static void run_frame(void)
{
	const struct header *header = (const struct header *)frame;
	const struct entry *entries = (const struct entry *)(header + 1);
	const struct pointer *pointers = (const struct pointer *)(entries + header->entries);
	const struct ref *ref = (const struct ref *)(pointers + header->pointers);
	const struct ref *refs_end = ref + header->refs;
	const struct out *out = (const struct out *)refs_end;
	const struct out *outs_end = out + header->outs;
	int64_t values[header->entries + 1];

	resolve_pointers(frame);
	for (uint32_t i = 0; i < header->entries; i++) {
		struct result result = { 0 };
		size_t place = reply.used;
		uint64_t start;

		for (; ref < refs_end && ref->entry == i; ref++)
			memcpy(frame + ref->at, &values[ref->of], ref->width);
		append(&result, sizeof(result));
		start = now();
		values[i] = result.value = entries[i].thread ? begin_thread(&entries[i]) : carry_out(&entries[i]);
		result.nanoseconds = now() - start;
		result.buffers = entries[i].kind == READ_FILE || entries[i].kind == READ_MEMORY;
		for (; out < outs_end && out->entry == i; out++, result.buffers++) {
			append(&out->size, sizeof(out->size));
			append(frame + out->at, out->size);
		}
		memcpy(reply.bytes + place, &result, sizeof(result));
	}
}

static void receive(char *to, size_t size)
{
	while (size) {
		ssize_t got = read(CHANNEL, to, size);

		if (got <= 0) /* nobody is there any more */
			die("channel");
		to += got;
		size -= got;
	}
}

static void transmit(const char *from, size_t size)
{
	while (size) {
		ssize_t put = write(CHANNEL, from, size);

		if (put < 0)
			die("channel");
		from += put;
		size -= put;
	}
}

static void receive_frame(void)
{
	struct header header;

	receive((char *)&header, sizeof(header));
	errno = EPROTO;
	if (header.magic != MAGIC)
		die("frame");
	if (header.size > frame_room) {
		frame = map(frame, frame_room, header.size);
		frame_room = header.size;
	}
	memcpy(frame, &header, sizeof(header));
	receive(frame + sizeof(header), header.sent - sizeof(header));
	memset(frame + header.sent, 0, header.size - header.sent);
}

/* A big file that was read once should not be part of every snapshot from then on. */
static void empty_reply(void)
{
	if (reply.room > 1 << 20) {
		munmap(reply.bytes, reply.room);
		reply.bytes = NULL;
		reply.room = 0;
	}
	reply.used = 0;
}

static void serve(void)
{
	uint32_t size;

	for (;;) {
		empty_reply();
		append(&(uint32_t){ 0 }, sizeof(uint32_t));
		receive_frame();
		run_frame();
		size = reply.used - sizeof(size);
		memcpy(reply.bytes, &size, sizeof(size));
		transmit(reply.bytes, reply.used);
	}
}

/* What a kernel does not have is not there: later parts see that when they open its files. */
static void mount_all(void)
{
	static const char *const mounts[][2] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "bpf", "/sys/fs/bpf" },
		{ "tmpfs", "/tmp" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i][1], 0755);
		mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
	}
}

/* A table of descriptors that several threads have grows behind a grace period of RCU, which a task may hold up. */
static void grow_descriptors(void)
{
	close(fcntl(CHANNEL, F_DUPFD, sysconf(_SC_OPEN_MAX) - 1));
}

static void load_modules(void)
{
	char path[32];

	for (int i = 0;; i++) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%d.ko", i);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return;
		if (syscall(SYS_finit_module, fd, "", 0))
			die(path);
		close(fd);
	}
}

static void open_at(int fd, const char *path, int flags)
{
	int opened = open(path, flags);

	for (int i = 0; opened < 0 && i < 10000; i++) { /* the port appears when its driver has probed it */
		usleep(1000);
		opened = open(path, flags);
	}
	if (opened < 0)
		die(path);
	if (opened != fd) {
		dup2(opened, fd);
		close(opened);
	}
}

int main(void)
{
	mount_all();
	load_modules();
	open_at(CHANNEL, "/dev/vport0p1", O_RDWR);
	open_at(KCORE, "/proc/kcore", O_RDONLY);
	grow_descriptors();
	serve();
}

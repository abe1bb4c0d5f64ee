// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * Holds the memory that a module has left, so that no function ever stands where one of another module stood: filters
 * keep the addresses of functions that have gone, and would select what comes there.
 */
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/vmalloc.h>

#include "massattach.h"

#ifdef MASSATTACH_EXECMEM
#include <linux/execmem.h>
MASSATTACH_IMPORT(execmem_alloc);
#define allocate(size) MASSATTACH_IMPORTED(execmem_alloc)(EXECMEM_MODULE_TEXT, size)
#else
#include <linux/moduleloader.h>
MASSATTACH_IMPORT(module_alloc);
#define allocate(size) MASSATTACH_IMPORTED(module_alloc)(size)
#endif

#define MOST_PAGES 4096

/* Words: the first address, and that behind the last. Memory is given out from below, so the rest of it is free then. */
long massattach_hold(const struct massattach_command *command)
{
	u64 page = 0;
	u32 count;

	vm_unmap_aliases();
	for (count = 0; count < MOST_PAGES && page < command->words[1]; count++) {
		page = (u64)allocate(PAGE_SIZE);
		if (!page)
			return -ENOMEM;
	}
	return page < command->words[1] ? -ENOSPC : 0;
}

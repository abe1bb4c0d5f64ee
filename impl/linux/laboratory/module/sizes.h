/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Numbers that C, assembler and the host (control.py) agree on.
 */
#ifndef MASSATTACH_SIZES_H
#define MASSATTACH_SIZES_H

#define MASSATTACH_SLOTS 256
#define MASSATTACH_STUBS 32
#define MASSATTACH_STACK 32

/* Registers that hold arguments: the one number here that is an architecture's, like the whole of stubs_SRCARCH.S. */
#ifdef CONFIG_X86_64
#define MASSATTACH_REGISTERS 6
#else
#error "no stubs and no number of argument registers for this architecture"
#endif

#endif

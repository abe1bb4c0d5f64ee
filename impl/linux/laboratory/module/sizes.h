/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Numbers that C, assembler and the host (control.py) agree on.
 */
#ifndef MASSATTACH_SIZES_H
#define MASSATTACH_SIZES_H

#define MASSATTACH_SLOTS 256
#define MASSATTACH_STUBS 32
#define MASSATTACH_REGISTERS 6
#define MASSATTACH_STACK 32

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * Where a task stays that park.c has stopped.
 */
#include <linux/linkage.h>

	.text

/* Reached by a changed instruction pointer, from anywhere: keeps all registers and flags, stays, and goes back. */
SYM_START(massattach_park_stub, SYM_L_GLOBAL, SYM_A_ALIGN)
	push	$0
	pushfq
	push	%rbp
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	cld
	mov	%rsp, %rbp
	and	$-16, %rsp
	call	massattach_park_stay
	mov	%rbp, %rsp
	mov	%rax, 128(%rsp)
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	pop	%rbp
	popfq
	.byte	0xc3 /* no return thunk, which would change flags */
SYM_FUNC_END(massattach_park_stub)

/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * The direct stubs, the callbacks of the ops, and the way into a function with given registers and stack.
 */
#include <linux/linkage.h>
#include <asm/nospec-branch.h>

#include "sizes.h"

#define STACK_AT (8 * MASSATTACH_REGISTERS)
#define ADDRESS_AT (STACK_AT + 8 * MASSATTACH_STACK)

	.text

#define LOST_AT (ADDRESS_AT + 8)
#define PUSHED (8 * 6)

/* Whatever a register that C preserves does not have any more is left in rcx. */
.macro PRESERVED register, value
	mov	$\value, %rdx
	xor	\register, %rdx
	or	%rdx, %rcx
.endm

/* u64 massattach_enter(struct massattach_call *call): more stack words than the function has do no harm. */
SYM_START(massattach_enter, SYM_L_GLOBAL, SYM_A_ALIGN)
	ENDBR
	push	%rbp
	mov	%rsp, %rbp
	push	%rbx
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	push	%rdi
	mov	%rdi, %rbx
	mov	$0x5a5a0012, %r12
	mov	$0x5a5a0013, %r13
	mov	$0x5a5a0014, %r14
	mov	$0x5a5a0015, %r15
	sub	$(8 * MASSATTACH_STACK), %rsp
	lea	STACK_AT(%rbx), %rsi
	mov	%rsp, %rdi
	mov	$MASSATTACH_STACK, %ecx
	rep movsq
	mov	0(%rbx), %rdi
	mov	8(%rbx), %rsi
	mov	16(%rbx), %rdx
	mov	24(%rbx), %rcx
	mov	32(%rbx), %r8
	mov	40(%rbx), %r9
	mov	ADDRESS_AT(%rbx), %rax
	ANNOTATE_RETPOLINE_SAFE
	call	*%rax
SYM_INNER_LABEL(massattach_returned, SYM_L_GLOBAL)
	lea	-(PUSHED + 8 * MASSATTACH_STACK)(%rbp), %rcx
	xor	%rsp, %rcx
	mov	-PUSHED(%rbp), %rsi
	xor	%rsi, %rbx
	or	%rbx, %rcx
	PRESERVED %r12, 0x5a5a0012
	PRESERVED %r13, 0x5a5a0013
	PRESERVED %r14, 0x5a5a0014
	PRESERVED %r15, 0x5a5a0015
	mov	%rcx, LOST_AT(%rsi)
	lea	-PUSHED(%rbp), %rsp
	pop	%rdi
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%rbx
	pop	%rbp
	RET
SYM_FUNC_END(massattach_enter)

/* Reached by a call at the function's entry, or as if by one: the return address is behind that call. */
.macro STUB number
SYM_START(massattach_stub\number, SYM_L_GLOBAL, SYM_A_ALIGN)
	ENDBR
	push	%rbp
	mov	%rsp, %rbp
#ifdef CALL_DEPTH_ACCOUNT
	CALL_DEPTH_ACCOUNT
#endif
	push	%rax
	push	%rdi
	push	%rsi
	push	%rdx
	push	%rcx
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	mov	$\number, %edi
	mov	8(%rbp), %rsi
	call	massattach_stub_ran
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rcx
	pop	%rdx
	pop	%rsi
	pop	%rdi
	pop	%rax
	leave
	RET
SYM_FUNC_END(massattach_stub\number)
.endm

/* One for each slot, so that a symbol tells whose ops it is. */
.macro CALLBACK number
SYM_START(massattach_ops\number, SYM_L_GLOBAL, SYM_A_ALIGN)
	ENDBR
	jmp	massattach_ops_ran
SYM_FUNC_END(massattach_ops\number)
.endm

.macro ADDRESS name, number
	.quad	\name\number
.endm

.altmacro
.set number, 0
.rept MASSATTACH_STUBS
	STUB %number
	.set number, number + 1
.endr
.set number, 0
.rept MASSATTACH_SLOTS
	CALLBACK %number
	.set number, number + 1
.endr

	.section .rodata
	.balign 8
SYM_START(massattach_stubs, SYM_L_GLOBAL, SYM_A_NONE)
.set number, 0
.rept MASSATTACH_STUBS
	ADDRESS massattach_stub, %number
	.set number, number + 1
.endr
SYM_END(massattach_stubs, SYM_T_OBJECT)
SYM_START(massattach_callbacks, SYM_L_GLOBAL, SYM_A_NONE)
.set number, 0
.rept MASSATTACH_SLOTS
	ADDRESS massattach_ops, %number
	.set number, number + 1
.endr
SYM_END(massattach_callbacks, SYM_T_OBJECT)

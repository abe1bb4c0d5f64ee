/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * What an architecture does so that tasks stop at points, and what it asks.
 */
#ifndef MASSATTACH_PARK_H
#define MASSATTACH_PARK_H

#include <linux/types.h>

#define MASSATTACH_POINTS 4

/* From now on a task that comes to one of these addresses, of which 0 is none, is asked about; nobody else. */
void massattach_points_arm(const u64 *points);
int massattach_points_init(void);

/* Until an interrupt comes, which may let another task run; tasks stop where interrupts are on. */
void massattach_points_relax(void);

/* Whether any task wants to stop at an address; whether the present one does, in its own call. */
bool massattach_park_wants(u64 address);
bool massattach_park_stops(u64 address, u64 stack, u64 frame);

/* Stays; returns where the task goes on. */
u64 massattach_park_stay(void);
void massattach_park_stub(void);

#endif

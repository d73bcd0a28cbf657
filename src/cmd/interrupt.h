/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Ctrl-C for verbs that must tidy up
 *
 * The signals that ask us to end are held from interrupt_hold() on; the verb
 * asks at each step whether one has come, tidies up and ends. Waiting for a
 * guest (stream.c) is cut short with EINTR.
 */
#include <signal.h>

/* Hold SIGINT, SIGTERM and SIGHUP for the rest of this process. SIGQUIT still
 * ends it at once, tidy or not. */
void interrupt_hold(void);

/* The signal that has come since; 0: none, or none are held. */
int interrupt_come(void);

/* The signal mask for a ppoll() that such a signal shall cut short; NULL while
 * none are held. */
const sigset_t *interrupt_mask(void);

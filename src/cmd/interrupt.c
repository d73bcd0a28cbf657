/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ctrl-C for verbs that must tidy up
 *
 * Blocking the signals, rather than letting them cut every call short, lets a
 * request to the daemon run to its answer: a create that is given up half-way
 * would leave a sandbox whose id we never learned. Requests take a fraction of
 * a second; whoever cannot wait has Ctrl-\.
 *
 * A guest may keep us waiting for ever, so there ppoll() lets the signals in:
 * between looking and waiting there is no gap for one to fall into.
 *
 * A signal that the parent told us to ignore (nohup) stays ignored.
 */
#include "cmd/interrupt.h"

#include <stddef.h>
#include <stdbool.h>
#include <time.h>

/* A signal handler knows no objects. */
static volatile sig_atomic_t interrupt_sig;
static sigset_t interrupt_saved;
static bool interrupt_held;

static const int interrupt_signals[] = { SIGINT, SIGTERM, SIGHUP };

static void interrupt_set(sigset_t *set)
{
	sigemptyset(set);
	for (size_t i = 0; i < 3; i++)
		sigaddset(set, interrupt_signals[i]);
}

static void interrupt_note(int sig)
{
	interrupt_sig = sig;
}

void interrupt_hold(void)
{
	const struct sigaction note = { .sa_handler = interrupt_note };
	struct sigaction old;
	sigset_t set;

	interrupt_set(&set);
	sigprocmask(SIG_BLOCK, &set, &interrupt_saved);
	for (size_t i = 0; i < 3; i++)
		if (sigaction(interrupt_signals[i], NULL, &old) == 0 &&
		    old.sa_handler != SIG_IGN)
			sigaction(interrupt_signals[i], &note, NULL);
	interrupt_held = true;
}

int interrupt_come(void)
{
	const struct timespec now = { 0 };
	sigset_t set;
	int sig;

	if (!interrupt_held || interrupt_sig)
		return interrupt_sig;
	interrupt_set(&set);
	sig = sigtimedwait(&set, NULL, &now);
	if (sig > 0)
		interrupt_sig = sig;
	return interrupt_sig;
}

const sigset_t *interrupt_mask(void)
{
	return interrupt_held ? &interrupt_saved : NULL;
}

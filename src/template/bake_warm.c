/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bake asks of the guest while it is up: commands, then quiet
 *
 *	sh, the warm commands
 *	settle: sync, drop caches
 *	sh, the warm commands    what they touch is in memory again
 *	facts, balloon           what is free is zero
 *	identity                 a rehearsal: its memory is allocated then
 *	settle                   sync
 *	quiet                    the guest's own loose ends
 *
 * Every request has a deadline, and the answer to one asks for the next. The
 * trials (bake_trial.c) run the same commands and give the same identity.
 */
#include "template/bake_steps.h"

#include "base/guard.h"
#include "base/io.h"
#include "base/parse.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define BAKE_QUIET_NS (1500 * NS_PER_MS)

static void bake_settle(struct bake *b);
static void bake_squeeze(struct bake *b);

/* ---- WARM ---- */

static void bake_output(struct rig *g, const void *p, size_t len)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (b->events && b->events->output && !b->second_round && b->next_warm)
		b->events->output(b->arg, p, len);
}

/* Number 0: a shell that runs, and says something, for that takes a page. In the
 * second round of the bake it also reads itself and its libraries into the page
 * cache, whole, whatever a later command will touch of them. Where there is no
 * cat or sed it runs, and that is all. In a trial it does what a user's would. */
static const char bake_shell_command[] =
	"cat /proc/$$/exe $(sed -n 's/.* \\//\\//p' /proc/$$/maps) "
	">/dev/null 2>&1; echo ok";

static const char *bake_warm_command(const struct bake *b)
{
	if (b->next_warm)
		return b->warm[b->next_warm - 1];
	return b->second_round && !b->trial_open ? bake_shell_command
						 : "echo ok";
}

static void bake_warm_worked(struct bake *b)
{
	/* A cold boot ends where a create does: with the answer to a first
	 * command. */
	if (b->next_warm == 0 && !b->second_round)
		b->m.boot_ms = (double)(clock_mono_ns() - b->boot_start_ns) /
			       1000000.0;
	b->next_warm++;
	if (b->trial_open)
		bake_trial_warm(b);
	else
		bake_warm_next(b);
}

static void bake_warm_result(struct rig *g, const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);
	const char *cmd = bake_warm_command(b);
	char message[120] = "", what[300], limit[16];
	uint64_t code = 0, sig = 0, eno = 0, timed_out = 0;

	err_drop(wire_find_u64(f, WIRE_K_CODE, &code));
	err_drop(wire_find_u64(f, WIRE_K_SIGNAL, &sig));
	err_drop(wire_find_u64(f, WIRE_K_ERRNO, &eno));
	err_drop(wire_find_u64(f, WIRE_K_TIMED_OUT, &timed_out));
	err_drop(wire_find_str(f, WIRE_K_MESSAGE, message, sizeof(message)));
	if (code == 0 && sig == 0 && eno == 0) {
		bake_warm_worked(b);
		return;
	}
	if (timed_out)
		snprintf(what, sizeof(what), "%s \"%s\" did not end within %s",
			 b->next_warm ? "warm-up command" : "shell command",
			 cmd, format_duration_ns(b->timeout_ns, limit));
	else if (b->next_warm == 0)
		snprintf(what, sizeof(what), "rootfs %s has no working sh%s%s",
			 b->rootfs, *message ? ": " : "", message);
	else if (sig)
		snprintf(what, sizeof(what),
			 "warm-up command \"%s\" was killed by signal %llu",
			 cmd, (unsigned long long)sig);
	else
		snprintf(what, sizeof(what),
			 "warm-up command \"%s\" ended with code %llu%s%s", cmd,
			 (unsigned long long)code, *message ? ": " : "",
			 message);
	bake_fail_code(b, EIO, what);
}

void bake_command(struct bake *b)
{
	guard_free uint8_t *mem = malloc(WIRE_FRAME_MAX);
	struct wire_out o;
	int n, r;

	if (!mem) {
		bake_fail_code(b, ENOMEM, "warm-up");
		return;
	}
	wire_begin(&o, mem, WIRE_FRAME_MAX, WIRE_EXEC, 0, 0);
	wire_put_str(&o, WIRE_K_ARG, "sh");
	wire_put_str(&o, WIRE_K_ARG, "-c");
	wire_put_str(&o, WIRE_K_ARG, bake_warm_command(b));
	wire_put_u64(&o, WIRE_K_TIMEOUT, b->timeout_ns);
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, "warm-up",
				b->timeout_ns + 5 * NS_PER_SEC, bake_output,
				bake_warm_result);
	if (r < 0)
		bake_fail_code(b, -r, "warm-up command");
}

void bake_warm_next(struct bake *b)
{
	if (b->next_warm <= b->n_warm) {
		if (!b->second_round)
			bake_step(b, BAKE_WARM,
				  b->next_warm ? bake_warm_command(b) : "sh");
		bake_command(b);
	} else if (!b->second_round) {
		bake_settle(b);
	} else {
		bake_squeeze(b);
	}
}

/* ---- SETTLE ---- */

static void bake_ask(struct bake *b, enum wire_type type, bool drop,
		     const char *doing, rig_result_fn result)
{
	uint8_t mem[64];
	struct wire_out o;
	int n, r;

	wire_begin(&o, mem, sizeof(mem), (uint8_t)type, 0, 0);
	if (drop)
		wire_put_u64(&o, WIRE_K_DROP, 1);
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, doing, BAKE_REQUEST_NS,
				NULL, result);
	if (r < 0)
		bake_fail_code(b, -r, doing);
}

void bake_identity(struct bake *b, const char *hostname, rig_result_fn result)
{
	uint8_t mem[256], entropy[32];
	struct wire_out o;
	int n, r;

	io_random(entropy, sizeof(entropy));
	wire_begin(&o, mem, sizeof(mem), WIRE_IDENTITY, 0, 0);
	wire_put(&o, WIRE_K_ENTROPY, entropy, sizeof(entropy));
	wire_put_u64(&o, WIRE_K_CLOCK, clock_real_ns());
	wire_put_str(&o, WIRE_K_HOSTNAME, hostname);
	wire_put_str(&o, WIRE_K_MACHINE_ID, "00000000000000000000000000000001");
	n = wire_end(&o);
	r = n < 0 ? n
		  : rig_request(&b->rig, mem, (size_t)n, "identity",
				BAKE_REQUEST_NS, NULL, result);
	if (r < 0)
		bake_fail_code(b, -r, "identity");
}

static void bake_settled(struct rig *g, unused const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);

	b->second_round = true;
	b->next_warm = 0;
	bake_warm_next(b);
}

static void bake_settle(struct bake *b)
{
	bake_step(b, BAKE_SETTLE, "drop caches, run again");
	bake_ask(b, WIRE_SETTLE, true, "settle", bake_settled);
}

/* The guest's own loose ends (grace periods, delayed work, a commit) are tied
 * up by now; what is pending in a snapshot is done by every guest again. */
static void bake_quiet(struct loop_timer *t)
{
	bake_save(container_of(t, struct bake, quiet));
}

static void bake_synced(struct rig *g, unused const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);

	if (loop_timer_set(b->config.loop, &b->quiet,
			   b->config.loop->now_ns + BAKE_QUIET_NS,
			   bake_quiet) < 0)
		bake_fail_code(b, ENOMEM, "settle");
}

static void bake_rehearsed(struct rig *g, unused const struct wire_frame *f)
{
	bake_ask(container_of(g, struct bake, rig), WIRE_SETTLE, false,
		 "settle", bake_synced);
}

/* What every restored guest does first, done once before: then it finds its
 * memory allocated. */
static void bake_rehearse(struct bake *b)
{
	bake_identity(b, "template", bake_rehearsed);
}

static void bake_squeezed(void *arg, const struct err *e)
{
	if (e->code)
		bake_fail(arg, e);
	else
		bake_rehearse(arg);
}

static void bake_facts(struct rig *g, const struct wire_frame *f)
{
	struct bake *b = container_of(g, struct bake, rig);
	uint64_t free_bytes = 0;

	err_drop(wire_find_u64(f, WIRE_K_MEM_FREE, &free_bytes));
	if (!squeeze_start(&b->squeeze, b->config.loop, b->rig.vmm,
			   b->m.memory_bytes, free_bytes, bake_squeezed, b))
		bake_rehearse(b);
}

static void bake_squeeze(struct bake *b)
{
	bake_step(b, BAKE_SETTLE, "give back free memory");
	bake_ask(b, WIRE_FACTS, false, "squeeze", bake_facts);
}

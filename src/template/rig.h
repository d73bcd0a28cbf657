/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A guest on the bake's bench: started, spoken to, switched off
 *
 * What bake.c needs of a VMM, its agent channel and its console, as one object
 * that does one thing at a time: start, then requests one after the other, each
 * with a deadline. Anything that goes wrong ends in `failed`, once.
 */
#include "base/loop.h"
#include "sandbox/channel.h"
#include "sandbox/console.h"
#include "sandbox/workdir.h"
#include "vmm/vmm.h"

struct rig;

struct rig_events {
	/* The agent answers. */
	void (*up)(struct rig *g);
	/* The VMM ended, a request failed or was overdue. What is left: rig_off.
	 */
	void (*failed)(struct rig *g, const struct err *e);
	/* After rig_off: the process is gone. */
	void (*off)(struct rig *g);
};

/* RESULT of a request: its fields. */
typedef void (*rig_result_fn)(struct rig *g, const struct wire_frame *result);
typedef void (*rig_output_fn)(struct rig *g, const void *p, size_t len);

struct rig {
	struct loop *loop;
	const struct rig_events *events;
	struct workdir *dir; /* borrowed */
	struct vmm *vmm;
	struct channel *channel;
	struct console *console;
	struct channel_stream stream;
	struct loop_timer timer;
	const char *doing; /* for the sentence of a failure */
	rig_result_fn result;
	rig_output_fn output;
	bool running; /* the VMM has told `started` */
	bool agent_up;
	bool ending;
	bool failed;
};

/* @g is zeroed. Its VMM is started as @spec says, from what @dir holds. */
int rig_start(struct rig *g, struct loop *loop, struct vmm_host *host,
	      struct workdir *dir, const struct vmm_spec *spec,
	      const struct rig_events *events, uint64_t timeout_ns,
	      struct err *e) must_check;

/* One request: a frame made with wire_begin(). @doing is static text. */
int rig_request(struct rig *g, uint8_t *frame, size_t len, const char *doing,
		uint64_t timeout_ns, rig_output_fn output,
		rig_result_fn result) must_check;

/* Kill the VMM; `off` follows, at once when there is none. */
void rig_off(struct rig *g);
/* Without waiting: for a bake that is abandoned. */
void rig_deinit(struct rig *g);

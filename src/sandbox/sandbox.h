/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Sandboxes, as users see them
 *
 *	             create
 *	(nothing) -----------> CREATING --ready--> RUNNING <--> PAUSED
 *	                          |                   |  pause    |
 *	                          | failed            |  resume   |
 *	                          v                   v           v
 *	                       (nothing)            EXITED or FAILED
 *	                                                  |
 *	                                     rm, or an hour later: (nothing)
 *
 * CREATING -> RUNNING [sandbox_ready], CREATING -> (nothing) [sandbox_abort]:
 * a create that fails leaves nothing behind, the caller has the error.
 * RUNNING/PAUSED -> EXITED [the guest powered off, ttl, rm],
 * -> FAILED [anything else ended the VMM]. Ended sandboxes keep their record
 * and console log; their disk is gone.
 * RUNNING -> PAUSED [sandbox_vmm_stopped]: not asked for, the VMM stopped it: the
 * host has no room for what the guest wrote. The reason is kept until it is
 * resumed.
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct image;
struct loop;
struct pager;
struct stores;
struct worker;
struct vmm_host;
struct channel;
struct registry;
struct sandbox;
struct buckets;

/* "sb" and 12 hex digits: 48 random bits, checked against the living. */
#define SANDBOX_ID_MAX 16
#define SANDBOX_CAUSE_MAX 240
/* NAME=value pairs given at create, and their bytes in all: they travel in one
 * IDENTITY frame. */
#define SANDBOX_ENV_MAX 256
#define SANDBOX_ENV_BYTES_MAX 32768

enum sandbox_state {
	SANDBOX_CREATING,
	SANDBOX_RUNNING,
	SANDBOX_PAUSED,
	SANDBOX_EXITED,
	SANDBOX_FAILED,
	SANDBOX_STATE_COUNT,
};

const char *sandbox_state_name(enum sandbox_state s);

/* Stages of a create, in ns; they add up to total. */
struct sandbox_timings {
	uint64_t spawn_ns; /* disk, plan, VMM process up */
	uint64_t load_ns; /* device state loaded, guest running */
	uint64_t identity_ns; /* agent greeted, identity renewed */
	uint64_t ready_ns; /* recorded */
	uint64_t total_ns;
};

/* What can be told about a sandbox; borrowed pointers, good until the loop
 * turns. */
struct sandbox_info {
	const char *id;
	const char *name; /* "" when it has none */
	const char *template;
	enum sandbox_state state;
	pid_t pid; /* 0 when ended */
	uint64_t created_real_ns;
	uint64_t ends_real_ns; /* ttl; 0: none */
	uint64_t memory_bytes;
	uint32_t vcpus;
	bool net;
	const char *cause; /* NULL while alive */
	const char *paused_because; /* why its VMM stopped it; else NULL */
	struct sandbox_timings timings;
};

struct sandbox_options {
	const char *template;
	const char *name; /* NULL: none */
	uint64_t ttl_ns; /* 0: none */
	bool net_user;
	const char *const *env; /* "NAME=value" */
	size_t n_env;
};

/* ---- the registry: all sandboxes of this daemon ---- */

/* How the registry finds templates (it stands below the template folder).
 * lookup answers from the loop, possibly later (verification of an image may
 * take a moment): @found is called exactly once. The image is borrowed. */
typedef void (*registry_image_fn)(void *arg, struct image *image,
				  const struct err *e);
struct registry_templates {
	void (*lookup)(void *self, const char *name, registry_image_fn found,
		       void *arg);
	void *self;
};

struct registry_config {
	const char *root; /* BYRE_ROOT */
	const char *run; /* BYRE_RUN */
	struct loop *loop;
	struct worker *worker;
	struct vmm_host *host;
	struct db *db;
	struct stores *stores; /* may be NULL: there are none */
	struct pager *pager; /* may be NULL: nothing can be streamed */
	struct registry_templates templates;
};

int registry_new(const struct registry_config *config, struct registry **ret,
		 struct err *e) must_check;
/* Lets every sandbox go on running. */
struct registry *registry_free(struct registry *r);

/* Take over what an earlier daemon left: live VMMs are adopted, half-made
 * sandboxes and stray files are removed. */
int registry_adopt(struct registry *r, struct err *e) must_check;

/* By id, or by name. NULL when there is none. */
struct sandbox *registry_find(struct registry *r, const char *id_or_name);
/* All of them, oldest first; start with NULL. */
struct sandbox *registry_next(struct registry *r, struct sandbox *after);
size_t registry_count(const struct registry *r);
/* Sandboxes, living or being made, of a template. */
size_t registry_uses(const struct registry *r, const char *template);

/* The result of a request; @s is NULL when @e->code is set. Called once, never
 * before the request function has returned. */
typedef void (*sandbox_done_fn)(void *arg, struct sandbox *s,
				const struct err *e);

/* Checks and reserves at once (-EEXIST: name taken, -EINVAL ...); the rest ends
 * in @done. When the caller goes away, sandbox_forget(arg) stops the callback;
 * the create goes on. */
int sandbox_create(struct registry *r, const struct sandbox_options *options,
		   sandbox_done_fn done, void *arg, struct err *e) must_check;
int sandbox_pause(struct sandbox *s, sandbox_done_fn done, void *arg,
		  struct err *e) must_check;
int sandbox_resume(struct sandbox *s, sandbox_done_fn done, void *arg,
		   struct err *e) must_check;
/* Ends it when it lives (needs @force then, else -EBUSY) and forgets it;
 * done() gets s = NULL and no error. */
int sandbox_remove(struct sandbox *s, bool force, sandbox_done_fn done,
		   void *arg, struct err *e) must_check;
/* Nobody waits for callbacks with this @arg any more. */
void sandbox_forget(struct registry *r, void *arg);

struct sandbox_info sandbox_info(const struct sandbox *s);
/* The channel to its agent; NULL with the reason in @e unless RUNNING. */
struct channel *sandbox_channel(struct sandbox *s, struct err *e);
/* Path of the console log; the file exists as long as the sandbox. */
const char *sandbox_console_path(const struct sandbox *s);

/* What the ledger must know to count this sandbox; false when it has no VMM. */
struct sandbox_memory {
	char id[SANDBOX_ID_MAX];
	char template[64];
	pid_t pid;
	uint64_t ram_addr; /* in the VMM, checked */
	uint64_t ram_bytes;
	int pidfd; /* borrowed */
	uint8_t *surrendered; /* a copy, the caller frees; may be NULL */
};
bool sandbox_memory(const struct sandbox *s, struct sandbox_memory *ret);

/* The memory file that a sandbox maps, with others. It is there as long as they
 * are, also when the template has another one by now and the directory is gone.
 * Borrowed pointers, as above. */
struct sandbox_layer {
	const char *template;
	const char *image; /* its directory's name */
	int fd; /* borrowed */
	uint64_t bytes;
	uint64_t zero_bytes; /* of these */
};
/* False when it has none: it has ended, a copy of its own, or is streamed. */
bool sandbox_layer(const struct sandbox *s, struct sandbox_layer *ret);

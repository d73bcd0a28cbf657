/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The inside of a sandbox and of the registry, for the files of this folder
 */
#include "base/list.h"
#include "base/loop.h"
#include "base/worker.h"
#include "gmem/plan.h"
#include "sandbox/channel.h"
#include "sandbox/console.h"
#include "sandbox/db.h"
#include "sandbox/sandbox.h"
#include "sandbox/streamed.h"
#include "sandbox/workdir.h"
#include "vmm/vmm.h"

/* A create must answer within this: twenty times a slow one under emulation. */
#define SANDBOX_READY_NS (60 * NS_PER_SEC)
/* A streamed one answers when its store does: more than the pager's deadline
 * (PAGER_DEADLINE_NS), so that it is the pager that tells what was amiss. */
#define SANDBOX_STREAMED_READY_NS (90 * NS_PER_SEC)
/* How long the record of an ended sandbox is kept. */
#define SANDBOX_KEEP_NS (3600 * NS_PER_SEC)
/* A guest without a command for this long is idle: its VMM is trimmed. Long
 * enough not to slow down somebody who types, or an agent that thinks. */
#define SANDBOX_IDLE_NS (10 * NS_PER_SEC)
/* Pause before a broken agent channel is connected again. */
#define SANDBOX_RECONNECT_NS NS_PER_SEC

/* Somebody who waits for an answer. */
struct waiter {
	struct list link;
	sandbox_done_fn done; /* NULL: nobody any more */
	void *arg;
};

struct registry {
	struct registry_config config;
	struct list sandboxes; /* oldest first */
	size_t n;
};

struct sandbox {
	struct registry *registry;
	struct list link;
	struct db_sandbox row; /* what the database knows, kept up to date */
	struct workdir dir;
	struct plan_view plan;
	struct streamed streamed;
	int layer_fd; /* the memory of row.image; -1: see sandbox_layer() */
	struct vmm *vmm;
	struct channel *channel;
	struct console *console;
	struct loop_timer deadline; /* of a create */
	struct loop_timer ttl; /* or of the record of an ended one */
	struct loop_timer reconnect;
	struct loop_timer idle; /* since no stream is open */
	struct list runners; /* waiters for pause or resume, one at a time */
	struct list removers; /* for remove */
	/* creating */
	struct list creator; /* its one waiter */
	struct image *image;
	char **env;
	size_t n_env;
	struct channel_stream identity;
	uint64_t start_ns, running_ns;
	struct err failure; /* code != 0: the create is being undone */
	bool looking; /* template lookup or preparation under way */
	bool removing; /* files are being deleted */
};

#define SANDBOX_LOG(level, s, fmt, ...) \
	log_##level("sandbox=%s " fmt, (s)->row.id, ##__VA_ARGS__)

/* registry.c */
struct sandbox *registry_add(struct registry *r);
void sandbox_free(struct sandbox *s);
int registry_free_slot(const struct registry *r, uint32_t *ret) must_check;

/* sandbox.c */
extern const struct vmm_events sandbox_vmm_events;
int sandbox_connect(struct sandbox *s, bool fresh, struct err *e) must_check;
void sandbox_disconnect(struct sandbox *s);
void sandbox_record(struct sandbox *s);
void sandbox_arm_ttl(struct sandbox *s);
/* RUNNING or PAUSED -> EXITED or FAILED; the VMM is gone. */
void sandbox_ended(struct sandbox *s, const char *cause, bool orderly);
/* Delete files, then row, then the object; tells the removers. */
void sandbox_delete(struct sandbox *s);

/* waiter.c */
int waiter_add(struct list *l, sandbox_done_fn done, void *arg) must_check;
/* Tell all of a list and free them. */
void waiters_tell(struct list *l, struct sandbox *s, const struct err *e);
void waiters_forget(struct list *l, const void *arg);

/* create.c: what the VMM's and the channel's events mean while creating */
void create_started(struct sandbox *s, const struct err *e);
void create_vmm_exited(struct sandbox *s, const char *cause);
void create_channel_broken(struct sandbox *s, const struct err *e);
void create_fail(struct sandbox *s, const struct err *e);

/* stray.c */
struct stray_id {
	char id[SANDBOX_ID_MAX];
};
/* Kill the VMM processes that carry one of these ids. */
int stray_kill(const struct stray_id *ids, size_t n, struct err *e) must_check;

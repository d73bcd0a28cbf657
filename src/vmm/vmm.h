/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * One VMM process per sandbox, behind one table of operations
 *
 * A driver (qemu.c today) starts a process that runs one guest, and steers it
 * from the loop without ever blocking. Above this header nobody knows which
 * driver it is: a guest is a spec (fds and numbers), a handful of requests that
 * each end in a callback, and two events.
 *
 *	           boot / restore                  pause
 *	(nothing) ---------------> STARTING -> RUNNING <-> PAUSED
 *	                              |           |  resume   |
 *	                              +-----------+-----------+--> ENDED
 *
 * STARTING -> RUNNING [started callback], RUNNING -> PAUSED [vmm_pause],
 * PAUSED -> RUNNING [vmm_resume], any -> ENDED [exited event: the process is
 * gone and reaped]. In ENDED only vmm_free and the facts may be called.
 */
#include "base/err.h"
#include "base/proc.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct vmm;
struct vmm_host;

enum vmm_accel {
	VMM_TCG,
	VMM_KVM,
	VMM_ACCEL_COUNT,
};

const char *vmm_accel_name(enum vmm_accel a);

enum vmm_state {
	VMM_STARTING,
	VMM_RUNNING,
	VMM_PAUSED,
	VMM_ENDED,
	VMM_STATE_COUNT,
};

/* What a device state can be loaded into: all of it must be equal. Names a
 * host's driver, or what a template was baked with. */
struct vmm_flavor {
	char driver[16]; /* "qemu" */
	char version[64]; /* of the VMM program, "7.2.22" */
	char accel[8]; /* vmm_accel_name() */
	char cpu[128]; /* CPU model as given to the VMM */
	char machine[64]; /* machine type and the version of our device set */
};

/* What this host runs guests with; found out once by vmm_host_new(). */
struct vmm_host_facts {
	struct vmm_flavor flavor;
	enum vmm_accel accel;
	char accel_reason[128]; /* why not KVM, empty when KVM */
	char program[256]; /* path of the VMM program */
	bool unprivileged; /* guests get user ids of their own */
};

/* How the root disk is put together. */
enum vmm_disk_kind {
	VMM_DISK_NONE,
	VMM_DISK_RAW, /* rw_fd is the whole disk */
	VMM_DISK_OVERLAY, /* rw_fd is a qcow2 file over ro_fd, raw */
	VMM_DISK_OVERLAY_NBD, /* over an export that a socket serves */
	VMM_DISK_KIND_COUNT,
};

struct vmm_disk {
	enum vmm_disk_kind kind;
	int rw_fd;
	int ro_fd; /* -1 with RAW */
	/* OVERLAY_NBD only: the socket is @nbd_name in the directory that
	 * nbd_dir_fd (O_PATH will do) refers to; a VMM that runs as a user of
	 * its own needs search permission there, and may write the socket. */
	int nbd_dir_fd;
	const char *nbd_name;
};

/* The export that a disk is served as. */
#define VMM_NBD_EXPORT "disk"
/* Letters, digits, '.', '_', '-'; a socket's address has 108 bytes. */
#define VMM_NBD_NAME_MAX 80

/*
 * Everything a VMM is started with. All fds are borrowed: the driver passes
 * duplicates to the process. The three listening unix sockets were made by the
 * caller, so that a later daemon can connect by path.
 */
struct vmm_spec {
	const char *id; /* for the process's command line */
	uint64_t ram_bytes; /* whole MiB */
	unsigned vcpus;
	int plan_fd; /* gmem/plan.h */
	int layer_fd;
	/* The layer is still being filled (PLAN_STREAMED): the next two count,
	 * and only then. */
	bool streamed;
	int uffd_dev_fd; /* /dev/userfaultfd, or -1 */
	int uffd_sock_fd; /* the VMM's end; gmem/plan.h, gmem_handover */
	struct vmm_disk disk;
	int control_fd; /* listening, at: */
	const char *control_path;
	int agent_fd; /* listening */
	int console_fd; /* listening */
	int log_fd; /* the VMM's own messages */
	bool net_user; /* user-mode network */
	uint32_t slot; /* picks the user id; unique among the living */
	/* boot: */
	const char *kernel; /* paths; NULL when restoring */
	const char *initrd;
	const char *cmdline; /* appended to the driver's own */
	/* restore: */
	int state_fd; /* device state, read from its start; -1 when booting */
	bool paused; /* do not run the guest after loading */
};

/* @e->code is 0 when the request was done. The callback may free the vmm. */
typedef void (*vmm_done_fn)(void *arg, const struct err *e);

struct vmm_balloon {
	uint64_t actual_bytes; /* what the guest has left */
};

typedef void (*vmm_balloon_fn)(void *arg, const struct err *e,
			       const struct vmm_balloon *b);

struct vmm_timings {
	uint64_t spawn_ns; /* start to the control socket's greeting */
	uint64_t load_ns; /* greeting to running */
};

struct vmm_events {
	/* STARTING is over (or the start failed; an exited event follows). */
	void (*started)(void *arg, const struct err *e);
	/* The VMM stopped the guest by itself: RUNNING -> PAUSED. */
	void (*stopped)(void *arg, const char *why);
	/* The disk has an error that is not lack of room, and the VMM stopped
	 * the guest before it could see it. @why: a sentence. There is nothing
	 * to do with it but to kill it. Only with VMM_DISK_OVERLAY_NBD. */
	void (*disk_failed)(void *arg, const char *why);
	/* The process has ended, once. @cause is a sentence. @guest: it was
	 * the guest that asked (power-off, reboot). */
	void (*exited)(void *arg, const char *cause, bool guest);
};

/* ---- the host's driver ---- */

/* @force_accel: NULL, "kvm" or "tcg" (BYRE_ACCEL). */
int vmm_host_new(struct loop *loop, const char *force_accel,
		 struct vmm_host **ret, struct err *e) must_check;
struct vmm_host *vmm_host_free(struct vmm_host *h);
const struct vmm_host_facts *vmm_host_facts(const struct vmm_host *h);
/* Sentence in @e when a state of flavor @f cannot be loaded here. */
int vmm_host_accepts(const struct vmm_host *h, const struct vmm_flavor *f,
		     struct err *e) must_check;

/* ---- one guest ---- */

/* Boot (spec->kernel) or restore (spec->state_fd). */
int vmm_start(struct vmm_host *h, const struct vmm_spec *spec,
	      const struct vmm_events *events, void *arg, struct vmm **ret,
	      struct err *e) must_check;

/* Take over a process started by an earlier daemon; @control_path is its
 * control socket. The started event tells when it answers; its state is then
 * RUNNING or PAUSED as found. */
int vmm_adopt(struct vmm_host *h, const struct proc_id *id,
	      const char *control_path, const struct vmm_events *events,
	      void *arg, struct vmm **ret, struct err *e) must_check;

/* Let go. A process that still runs goes on running (the daemon ends). */
struct vmm *vmm_free(struct vmm *v);

enum vmm_state vmm_state(const struct vmm *v);
struct proc_id vmm_proc(const struct vmm *v);
int vmm_pidfd(const struct vmm *v);
struct vmm_timings vmm_timings(const struct vmm *v);
/* The plan's fd inside the process, for whoever must fetch it back. */
int vmm_plan_fd_number(void);
/* The same of the layer, and of a streamed guest's userfaultfd. */
int vmm_layer_fd_number(void);
int vmm_uffd_fd_number(void);

/* Requests: one of a kind at a time, -EBUSY otherwise. */
int vmm_pause(struct vmm *v, vmm_done_fn done, void *arg) must_check;
int vmm_resume(struct vmm *v, vmm_done_fn done, void *arg) must_check;
/* Device state (not RAM) of a paused guest into @fd; borrowed. */
int vmm_save(struct vmm *v, int fd, vmm_done_fn done, void *arg) must_check;
/* What the guest shall have left; a wish, the guest follows in its time. */
int vmm_balloon_set(struct vmm *v, uint64_t bytes, vmm_done_fn done,
		    void *arg) must_check;
int vmm_balloon_get(struct vmm *v, vmm_balloon_fn done, void *arg) must_check;
/* The guest idles: give back memory that the VMM holds only for speed (with
 * TCG, translated code). The next command is slower. */
void vmm_trim(struct vmm *v);
/* SIGKILL; the exited event follows with @cause. */
void vmm_kill(struct vmm *v, const char *cause);

/* ---- the table a driver fills ---- */

struct vmm_ops {
	const char *name;
	int (*host_new)(struct loop *loop, const char *force_accel,
			struct vmm_host **ret, struct err *e);
	void (*host_free)(struct vmm_host *h);
	int (*start)(struct vmm_host *h, const struct vmm_spec *spec,
		     struct vmm *v, struct err *e);
	int (*adopt)(struct vmm_host *h, const char *control_path,
		     struct vmm *v, struct err *e);
	void (*free)(struct vmm *v);
	int (*pause)(struct vmm *v, vmm_done_fn done, void *arg);
	int (*resume)(struct vmm *v, vmm_done_fn done, void *arg);
	int (*save)(struct vmm *v, int fd, vmm_done_fn done, void *arg);
	int (*balloon_set)(struct vmm *v, uint64_t bytes, vmm_done_fn done,
			   void *arg);
	int (*balloon_get)(struct vmm *v, vmm_balloon_fn done, void *arg);
	void (*trim)(struct vmm *v);
};

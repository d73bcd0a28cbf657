/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How QEMU is told to be a small machine
 *
 * A microvm: virtio over MMIO, one ISA serial port as the console (it works
 * from the kernel's first line to its panic), no PCI, no option ROMs. The same
 * devices in the same order for boot and restore: that is what a saved state
 * fits on. Restoring leaves out -kernel and -initrd, which QEMU would keep in
 * memory (14 MB).
 *
 * Every file is an inherited fd: a VMM that runs as nobody, in a seccomp filter
 * that forbids new processes, opens nothing by itself. Of the two paths,
 * PLAN_PATH does not exist and is answered by the preloaded shim; the socket of
 * a disk that is still being fetched (NBD) is reached through the fd of its
 * directory, and only connected to.
 *
 * TCG (no KVM): the guest is emulated, and what costs nothing on a CPU is dear
 * there. See tcg_cpu and tcg_cmdline below for what is taken away and why.
 */
#include "vmm/qemu_args.h"

#include "gmem/plan.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *qemu_text(struct qemu_args *a, const char *fmt, ...)
	printf_like(2, 3);

static const char *qemu_text(struct qemu_args *a, const char *fmt, ...)
{
	char *p = a->text + a->used;
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(p, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= room) {
		a->overflow = true;
		return "";
	}
	a->used += (size_t)n + 1;
	return p;
}

static void qemu_arg(struct qemu_args *a, const char *s)
{
	if (a->n + 1 >= QEMU_ARGV_MAX) {
		a->overflow = true;
		return;
	}
	a->argv[a->n++] = s;
	a->argv[a->n] = NULL;
}

static void qemu_pair(struct qemu_args *a, const char *option,
		      const char *value)
{
	qemu_arg(a, option);
	qemu_arg(a, value);
}

static void qemu_machine(struct qemu_args *a, const struct vmm_host_facts *f,
			 const struct vmm_spec *s)
{
	unsigned long long mib = s->ram_bytes >> 20;

	/* Without a TSC to trust, KVM guests calibrate against the PIT; under
	 * TCG the frequency is given, and a PIT that goes on ticking after the
	 * boot doubles what an idle VMM costs. */
	qemu_pair(a, "-M",
		  qemu_text(a,
			    "microvm,memory-backend=ram,mem-merge=off,"
			    "dump-guest-core=off,x-option-roms=off,rtc=on,"
			    "isa-serial=on,pit=%s,pic=on,acpi=on,"
			    "auto-kernel-cmdline=on",
			    f->accel == VMM_KVM ? "on" : "off"));
	/* 32 MiB of translations: 8 thrash, and only what is used costs. */
	qemu_pair(a, "-accel", f->accel == VMM_KVM ? "kvm" : "tcg,tb-size=32");
	qemu_pair(a, "-cpu", f->accel == VMM_KVM ? "host" : QEMU_TCG_CPU);
	qemu_pair(a, "-smp", qemu_text(a, "%u", s->vcpus));
	qemu_pair(a, "-m", qemu_text(a, "%lluM", mib));
	qemu_pair(a, "-object",
		  qemu_text(a,
			    "memory-backend-file,id=ram,size=%lluM,share=on,"
			    "mem-path=" PLAN_PATH,
			    mib));
}

static void qemu_sockets(struct qemu_args *a)
{
#define QEMU_LISTEN(id, fd) \
	qemu_text(a, "socket,id=%s,fd=%d,server=on,wait=off", id, fd)
	qemu_pair(a, "-chardev", QEMU_LISTEN("control", QEMU_FD_CONTROL));
	qemu_pair(a, "-mon", "chardev=control,mode=control");
	qemu_pair(a, "-chardev", QEMU_LISTEN("console", QEMU_FD_CONSOLE));
	qemu_pair(a, "-serial", "chardev:console");
	qemu_pair(a, "-chardev", QEMU_LISTEN("agent", QEMU_FD_AGENT));
#undef QEMU_LISTEN
	qemu_pair(a, "-device", "virtio-serial-device,max_ports=2");
	qemu_pair(a, "-device",
		  "virtserialport,nr=1,chardev=agent,name=byre.agent");
	/* No free-page reporting: a restored guest would report all its free
	 * memory within its first half minute and dirty 4 MiB of page
	 * structures doing so, more than everything else it does. */
	qemu_pair(a, "-device", "virtio-balloon-device,deflate-on-oom=on");
}

/* io_uring would be denied by some hosts' seccomp; threads start only when there
 * is work and end after ten idle seconds. */
#define QEMU_FILE_NODE(name, set, ro)                                   \
	qemu_text(a,                                                    \
		  "{\"driver\":\"file\",\"node-name\":\"%s\","          \
		  "\"filename\":\"/dev/fdset/%d\",\"locking\":\"off\"," \
		  "\"aio\":\"threads\",\"discard\":\"unmap\","          \
		  "\"read-only\":%s}",                                  \
		  name, set, ro)

static void qemu_disk_base(struct qemu_args *a)
{
	qemu_pair(a, "-add-fd", qemu_text(a, "fd=%d,set=2", QEMU_FD_DISK_RO));
	qemu_pair(a, "-blockdev", QEMU_FILE_NODE("rofile", 2, "true"));
	qemu_pair(a, "-blockdev",
		  "{\"driver\":\"raw\",\"node-name\":\"base\","
		  "\"file\":\"rofile\",\"read-only\":true}");
}

/* What a name in a path and in JSON may be without being quoted. */
static bool qemu_name_ok(const char *s)
{
	size_t len = strlen(s);

	return len > 0 && len <= VMM_NBD_NAME_MAX && s[0] != '.' &&
	       strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			 "0123456789._-") == len;
}

/* The base is served by the pager, from whom a new one takes over when it dies.
 * Requests wait for that as long as it takes (an hour is for ever, but ends);
 * a first connection that nobody accepts is a start that failed. */
static void qemu_disk_nbd(struct qemu_args *a, const struct vmm_disk *d)
{
	qemu_pair(a, "-blockdev",
		  qemu_text(a,
			    "{\"driver\":\"nbd\",\"node-name\":\"base\","
			    "\"server\":{\"type\":\"unix\","
			    "\"path\":\"/proc/self/fd/%d/%s\"},"
			    "\"export\":\"" VMM_NBD_EXPORT "\","
			    "\"reconnect-delay\":3600,\"open-timeout\":30,"
			    "\"read-only\":true}",
			    QEMU_FD_NBD_DIR, d->nbd_name));
}

static void qemu_disk(struct qemu_args *a, const struct vmm_disk *d)
{
	if (d->kind == VMM_DISK_NONE)
		return;
	qemu_pair(a, "-add-fd", qemu_text(a, "fd=%d,set=1", QEMU_FD_DISK_RW));
	qemu_pair(a, "-blockdev", QEMU_FILE_NODE("rwfile", 1, "false"));
	if (d->kind == VMM_DISK_RAW) {
		qemu_pair(a, "-blockdev",
			  "{\"driver\":\"raw\",\"node-name\":\"disk\","
			  "\"file\":\"rwfile\",\"discard\":\"unmap\"}");
	} else {
		if (d->kind == VMM_DISK_OVERLAY_NBD)
			qemu_disk_nbd(a, d);
		else
			qemu_disk_base(a);
		/* The default L2 cache may grow to 32 MiB per guest. */
		qemu_pair(a, "-blockdev",
			  "{\"driver\":\"qcow2\",\"node-name\":\"disk\","
			  "\"file\":\"rwfile\",\"backing\":\"base\","
			  "\"discard\":\"unmap\",\"l2-cache-size\":262144,"
			  "\"refcount-cache-size\":262144,"
			  "\"cache-clean-interval\":60}");
	}
	/* Bytes that the pager cannot get end the sandbox, with the reason: an
	 * error must not reach the guest. Saved states do not know of this. */
	qemu_pair(a, "-device",
		  d->kind == VMM_DISK_OVERLAY_NBD
			  ? "virtio-blk-device,drive=disk,rerror=stop,"
			    "werror=stop"
			  : "virtio-blk-device,drive=disk");
#undef QEMU_FILE_NODE
}

/*
 * What the guest's kernel is told. Everywhere: one console, end on panic, no
 * look at hardware that is not there, no watchdog, no policy modules without a
 * policy, nothing that wakes an idle guest to count or compact (0.25 -> 0.05 % of
 * a core). No huge pages: one touched byte would cost 2 MiB of host memory (and
 * the kernel keeps 45 MiB free for them, at the page cache's expense).
 *
 * Under TCG (src/vmm/qemu_args.h has the CPU) besides: the kernel distrusts a
 * TSC it cannot calibrate against anything and would tick 250 times a second,
 * so tsc=reliable and the frequency. Speculation cannot happen in an emulator,
 * its mitigations only cost. norandmaps: translated code is found by its
 * virtual address, so a program whose addresses change is translated again at
 * every start; fixed ones make the second exec four times as fast (sh 43 ms ->
 * 8 ms). init_on_alloc=0: clearing pages is slow when it is emulated.
 */
static void qemu_kernel(struct qemu_args *a, const struct vmm_host_facts *f,
			const struct vmm_spec *s, uint64_t khz)
{
	const char *cmdline = s->cmdline ? s->cmdline : "";
	char tcg[160] = "";

	if (f->accel == VMM_TCG)
		snprintf(tcg, sizeof(tcg),
			 " mitigations=off norandmaps init_on_alloc=0"
			 " tsc=reliable tsc_early_khz=%llu",
			 (unsigned long long)khz);
	qemu_pair(a, "-kernel",
		  qemu_text(a, "/proc/self/fd/%d", QEMU_FD_KERNEL));
	qemu_pair(a, "-initrd",
		  qemu_text(a, "/proc/self/fd/%d", QEMU_FD_INITRD));
	qemu_pair(a, "-append",
		  qemu_text(a,
			    "console=ttyS0 quiet panic=-1 reboot=t "
			    "i8042.noaux i8042.nokbd 8250.nr_uarts=1 "
			    "nowatchdog random.trust_cpu=on "
			    "lsm=landlock,yama noautogroup "
			    "audit=0 transparent_hugepage=never psi=0 "
			    "sysctl.vm.compaction_proactiveness=0 "
			    "sysctl.vm.stat_interval=3600 "
			    "byre.net=%d%s%s%s",
			    s->net_user, tcg, *cmdline ? " " : "", cmdline));
}

int qemu_args_make(struct qemu_args *a, const struct vmm_host_facts *f,
		   const struct vmm_spec *s, uint64_t khz)
{
	memset(a, 0, sizeof(*a));
	if (s->disk.kind == VMM_DISK_OVERLAY_NBD &&
	    !qemu_name_ok(s->disk.nbd_name))
		return -EINVAL;
	qemu_arg(a, f->program);
	qemu_pair(a, "-name", qemu_text(a, "byre-%s", s->id));
	qemu_arg(a, "-nodefaults");
	qemu_arg(a, "-no-user-config");
	qemu_arg(a, "-no-reboot");
	qemu_pair(a, "-display", "none");
	qemu_pair(a, "-sandbox",
		  "on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
		  "resourcecontrol=deny");
	/* Saved while paused, a guest would come back paused and need another
	 * word; without the note of its run state it starts when it is loaded.
	 */
	qemu_pair(a, "-global", "migration.store-global-state=off");
	qemu_machine(a, f, s);
	qemu_sockets(a);
	qemu_disk(a, &s->disk);
	/* Always the same machine, so that any template serves guests with and
	 * without a network: the card is there, a cable only on request. */
	if (s->net_user)
		qemu_pair(a, "-netdev", "user,id=net");
	/* No announcement after a restore: the card tells the kernel, which
	 * tells everybody, 1,000 translated blocks later. */
	qemu_pair(a, "-device",
		  s->net_user
			  ? "virtio-net-device,guest_announce=off,netdev=net"
			  : "virtio-net-device,guest_announce=off");
	if (s->kernel)
		qemu_kernel(a, f, s, khz);
	else
		qemu_pair(a, "-incoming", "defer");
	if (s->paused)
		qemu_arg(a, "-S");
	return a->overflow ? -E2BIG : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * QEMU's command line: the disk's kinds, and names that may not get into it
 */
#include "vmm/qemu_args.h"

#include "base/test.h"

#include <errno.h>

static struct qemu_args args;

static int make(const struct vmm_spec *spec)
{
	static const struct vmm_host_facts facts = { .accel = VMM_TCG,
						     .program = "/qemu" };

	return qemu_args_make(&args, &facts, spec, 1000);
}

/* How many words have @text in them. */
static int words_with(const char *text)
{
	int n = 0;

	for (size_t i = 0; i < args.n; i++)
		n += strstr(args.argv[i], text) != NULL;
	return n;
}

static void test_disks(void)
{
	struct vmm_spec s = { .id = "x", .ram_bytes = 1 << 20, .vcpus = 1 };

	check(make(&s) == 0 && words_with("blockdev") == 0);
	s.disk.kind = VMM_DISK_RAW;
	check(make(&s) == 0 && words_with("\"base\"") == 0);
	check(words_with("-blockdev") == 2 && words_with("virtio-blk") == 1);
	s.disk.kind = VMM_DISK_OVERLAY;
	check(make(&s) == 0 && words_with("-blockdev") == 4);
	check(words_with("fd=9,set=2") == 1 && words_with("\"nbd\"") == 0);
	/* An error for want of room pauses (QEMU's default), others are the
	 * guest's. */
	check(words_with("error=") == 0);
	/* All that is different to the guest's side of it: nothing, but that it
	 * sees no error. */
	s.disk.kind = VMM_DISK_OVERLAY_NBD;
	s.disk.nbd_name = "im12.nbd";
	check(make(&s) == 0 && words_with("-blockdev") == 3);
	check(words_with("set=2") == 0 && words_with("virtio-blk") == 1);
	check(words_with("drive=disk,rerror=stop,werror=stop") == 1);
	check(words_with("\"path\":\"/proc/self/fd/17/im12.nbd\"") == 1);
	check(words_with("\"export\":\"" VMM_NBD_EXPORT "\"") == 1);
}

static void test_names(void)
{
	static const char *const bad[] = { "",        ".",   "..",   ".hidden",
					   "a/b",     "/",   "a\"b", "a\\",
					   "a b",     "a\n", "%",    "a,b=on",
					   "\xc3\xa4" };
	struct vmm_spec s = { .id = "x", .ram_bytes = 1 << 20, .vcpus = 1 };
	char name[VMM_NBD_NAME_MAX + 2];

	s.disk.kind = VMM_DISK_OVERLAY_NBD;
	for (size_t i = 0; i < nitems(bad); i++) {
		s.disk.nbd_name = bad[i];
		check(make(&s) == -EINVAL);
	}
	memset(name, 'a', sizeof(name));
	name[VMM_NBD_NAME_MAX + 1] = '\0';
	s.disk.nbd_name = name;
	check(make(&s) == -EINVAL);
	name[VMM_NBD_NAME_MAX] = '\0';
	check(make(&s) == 0);
	s.disk.nbd_name = "A-z_0.9";
	check(make(&s) == 0);
}

int main(void)
{
	test_disks();
	test_names();
	return 0;
}

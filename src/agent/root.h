/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The root file system: found, mounted, moved into
 */
#include "base/err.h"

/* Mount @device on /root. @type: a file system, or "" to look at the super
 * block. Read-only file systems get a writable overlay in memory. The sentence
 * is "mount DEVICE: reason". */
int root_mount(const char *device, const char *type, struct err *e) must_check;

/* Make /root the root, with /dev, /proc and /sys in it, and give the memory of
 * the initramfs back. */
int root_switch(struct err *e) must_check;

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Who this guest is, told by the host after every restore
 */
#include "agent/wire.h"
#include "base/err.h"

/* Variables in one IDENTITY; their text fits one payload. */
#define IDENTITY_ENV_MAX 256

/* Put the files of names (/etc/hostname, /etc/machine-id) into memory, as
 * containers have them: bound over those on the disk. Once, before a snapshot;
 * failures leave the disk's. */
void identity_place(void);

struct identity {
	unsigned n_env;
	char *env[IDENTITY_ENV_MAX]; /* into text */
	char text[WIRE_PAYLOAD_MAX];
};

/* Take what IDENTITY says. The environment is remembered in any case; @machine:
 * the rest is done to the machine we run on too. Everything is tried, the
 * first failure is reported. */
int identity_set(struct identity *id, const struct wire_frame *f, bool machine,
		 struct err *e) must_check;

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * PUT: files from the host
 */
#include "agent/wire.h"

struct agent;
struct stream;

/* Answers STARTED, or ends the stream. */
void put_start(struct agent *a, struct stream *s, const struct wire_frame *f);
void put_frame(struct agent *a, struct stream *s, const struct wire_frame *f);
/* Half a file is removed; says nothing. */
void put_abandon(struct agent *a, struct stream *s);

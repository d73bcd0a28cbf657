/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * GET: files for the host
 */
#include "agent/wire.h"

struct agent;
struct stream;

void get_start(struct agent *a, struct stream *s, const struct wire_frame *f);
void get_frame(struct agent *a, struct stream *s, const struct wire_frame *f);
/* Send what may be sent; true: there is more. May end the stream. */
bool get_pump(struct agent *a, struct stream *s);
void get_abandon(struct agent *a, struct stream *s);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A directory over HTTP on 127.0.0.1: GET and HEAD, with Range
 */
#include "base/err.h"

#include <stdint.h>

struct range_server;

int range_server_new(const char *dir, struct range_server **ret,
		     struct err *e) must_check;
struct range_server *range_server_free(struct range_server *s);
uint16_t range_server_port(const struct range_server *s);

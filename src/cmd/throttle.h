/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * A network that is farther away than loopback: a relay with delay and rate
 *
 * A stand-in for what this machine's kernel cannot do (no netem): TCP
 * connections to a port of 127.0.0.1 are relayed to another one, bytes arrive
 * a fixed time later, and both directions have a rate that all connections
 * share. A new connection's first bytes wait another round trip, for the
 * handshake that loopback did not have.
 */
#include "base/err.h"

#include <stdint.h>

struct throttle;

/* @delay_ns: one way. @rate_bits: per second and direction; 0: no limit. Runs
 * in a thread of its own until freed. */
int throttle_new(uint16_t target_port, uint64_t delay_ns, uint64_t rate_bits,
		 struct throttle **ret, struct err *e) must_check;
struct throttle *throttle_free(struct throttle *t);
uint16_t throttle_port(const struct throttle *t);

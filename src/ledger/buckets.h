/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Buckets: one guest's RAM, each page in exactly one of six accounts
 *
 * Counts are in bytes. They add up to the configured size, always.
 */
#include <stdint.h>

struct buckets {
	uint64_t shared; /* present, clean, from a layer */
	uint64_t private; /* present, dirtied: this guest's alone */
	uint64_t swapped; /* dirtied, now in swap */
	uint64_t zero; /* present, the kernel's zero page */
	uint64_t balloon; /* absent because the guest surrendered it */
	uint64_t absent; /* never touched, or dropped */
};

uint64_t buckets_sum(const struct buckets *b);
void buckets_add(struct buckets *sum, const struct buckets *b);

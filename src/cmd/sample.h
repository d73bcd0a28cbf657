/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Repeated measurements of one thing, and their percentiles
 */
#include "base/must.h"

#include <stdint.h>

struct sample {
	double *v;
	size_t n, size;
};

#define SAMPLE_NULL       \
	{                 \
		.v = NULL \
	}

void sample_deinit(struct sample *s);
/* -ENOMEM only. */
int sample_add(struct sample *s, double v) must_check;
/* The smallest value that @percent of all values do not exceed (nearest rank):
 * a value that was measured, never one in between. Sorts. 0 when empty. */
double sample_percentile(struct sample *s, unsigned percent);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Repeated measurements and their percentiles
 *
 * All values are kept: a bench has hundreds or thousands, and percentiles of a
 * histogram would be those of its buckets.
 */
#include "cmd/sample.h"

#include <errno.h>
#include <stdlib.h>

void sample_deinit(struct sample *s)
{
	free(s->v);
	*s = (struct sample)SAMPLE_NULL;
}

int sample_add(struct sample *s, double v)
{
	size_t size = s->size ? 2 * s->size : 64;
	double *p;

	if (s->n == s->size) {
		p = reallocarray(s->v, size, sizeof(*p));
		if (!p)
			return -ENOMEM;
		s->v = p;
		s->size = size;
	}
	s->v[s->n++] = v;
	return 0;
}

static int sample_compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

double sample_percentile(struct sample *s, unsigned percent)
{
	size_t rank;

	must(percent <= 100);
	if (!s->n)
		return 0;
	qsort(s->v, s->n, sizeof(*s->v), sample_compare);
	rank = (s->n * percent + 99) / 100;
	return s->v[rank ? rank - 1 : 0];
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Callers who wait for an answer
 *
 * A list of callbacks. A caller that goes away is forgotten by its argument:
 * its entry stays, mute, so that whoever walks the list is not disturbed.
 */
#include "sandbox/object.h"

#include <errno.h>
#include <stdlib.h>

int waiter_add(struct list *l, sandbox_done_fn done, void *arg)
{
	struct waiter *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->done = done;
	w->arg = arg;
	list_add_tail(l, &w->link);
	return 0;
}

void waiters_tell(struct list *l, struct sandbox *s, const struct err *e)
{
	struct list mine;

	/* Callbacks may add to the list they were on. */
	list_init(&mine);
	while (!list_empty(l)) {
		struct list *first = l->next;

		list_del(first);
		list_add_tail(&mine, first);
	}
	while (!list_empty(&mine)) {
		struct waiter *w = list_entry(mine.next, struct waiter, link);

		list_del(&w->link);
		if (w->done)
			w->done(w->arg, e->code ? NULL : s, e);
		free(w);
	}
}

void waiters_forget(struct list *l, const void *arg)
{
	struct waiter *w, *tmp;

	list_for_each (w, tmp, l, struct waiter, link)
		if (w->arg == arg)
			w->done = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Intrusive doubly linked lists
 *
 * A head is a link that points at itself; an unlinked link points at itself
 * too, so list_del() may be called twice.
 */
#include "base/must.h"

#include <stdbool.h>

struct list {
	struct list *next, *prev;
};

#define LIST_INIT(l)       \
	{                  \
		&(l), &(l) \
	}

static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_add_tail(struct list *head, struct list *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static inline void list_del(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

#define list_entry(l, type, member) container_of(l, type, member)

/* The link of an entry, without looking into it: at the end of a walk the
 * "entry" is the head, with nothing around it. */
#define list_link(entry, type, member) \
	((struct list *)(void *)((char *)(entry) + offsetof(type, member)))

/* @pos is of the entry's type; the current entry may be removed. */
#define list_for_each(pos, tmp, head, type, member)                          \
	for (pos = list_entry((head)->next, type, member),                   \
	    tmp = list_entry(list_link(pos, type, member)->next, type,       \
			     member);                                        \
	     list_link(pos, type, member) != (head);                         \
	     pos = tmp, tmp = list_entry(list_link(pos, type, member)->next, \
					 type, member))

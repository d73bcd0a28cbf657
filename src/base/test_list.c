/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists: order, removal while walking, removal twice
 */
#include "base/list.h"

#include "base/test.h"

struct item {
	int n;
	struct list link;
};

int main(void)
{
	struct list head = LIST_INIT(head);
	struct item items[5], *i, *tmp;
	int sum = 0, last = -1;

	check(list_empty(&head));
	list_for_each (i, tmp, &head, struct item, link)
		check(false);
	for (int n = 0; n < 5; n++) {
		items[n].n = n;
		list_add_tail(&head, &items[n].link);
	}
	list_for_each (i, tmp, &head, struct item, link) {
		check(i->n == last + 1);
		last = i->n;
		if (i->n % 2)
			list_del(&i->link);
	}
	check(last == 4);
	list_del(&items[1].link);
	list_for_each (i, tmp, &head, struct item, link)
		sum += i->n;
	check(sum == 0 + 2 + 4);
	list_for_each (i, tmp, &head, struct item, link)
		list_del(&i->link);
	check(list_empty(&head));
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is everything that an index names in the store, and what it should be?
 *
 * Every frame is fetched and decoded, and thrown away: what a pull would see,
 * without the disk space. It ends at the first damage.
 */
#include "image/pack.h"

#include "image/pack_fetch.h"

int pack_verify(const struct index *x, struct store *store,
		pack_progress_fn progress, void *arg, struct err *e)
{
	const struct pack_fetch f = {
		.x = x,
		.store = store,
		.progress = progress,
		.progress_arg = arg,
		.total = index_data_bytes(x, INDEX_MEMORY) +
			 index_data_bytes(x, INDEX_DISK),
	};
	int r = pack_fetch(&f, e);

	if (r < 0)
		err_prefix(e, "verify %s", index_id(x));
	return r;
}

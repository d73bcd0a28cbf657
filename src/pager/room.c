/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's file that is full
 *
 * A disk is a sparse file on a file system that others fill, the cache of frames
 * among them. A guest needs its disk more than anybody needs the cache: so the
 * cache gives up what it holds, oldest first, before a write fails.
 *
 *	write --ENOSPC--> cache_make_way() --some--> write again
 *	                        '--nothing left--> full
 *
 * While the file is full, nothing is fetched for it: what cannot be put away
 * would come from the store again and again. Whoever waits does so as for a
 * store that is away, for room may come back.
 *
 * It does not look how much is free before a write: a file system knows
 * that only when it tries.
 */
#include "pager/object.h"

#include "image/cache.h"
#include "image/frame.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int room_fd(const struct layer *l, uint32_t id)
{
	return id < l->n_memory ? l->memory_fd : l->disk_fd;
}

static bool room_make(struct layer *l, uint32_t id)
{
	struct cache *c = l->engine->config.cache;

	return c && cache_make_way(c, room_fd(l, id), layer_frame_bytes(l, id));
}

int room_place(struct layer *l, uint32_t id, const void *raw)
{
	int r;

	do {
		r = frame_place(l->index, layer_part(l, id),
				layer_part_id(l, id), raw, room_fd(l, id));
		if (r == -EDQUOT)
			r = -ENOSPC;
	} while (r == -ENOSPC && room_make(l, id));
	if (id >= l->n_memory && (r == 0 || r == -ENOSPC))
		atomic_store(&l->disk_full, r != 0);
	return r;
}

bool room_lacks(struct layer *l, uint32_t id)
{
	struct statvfs v = { 0 };
	uint64_t blocks;

	if (id < l->n_memory || !atomic_load(&l->disk_full))
		return false;
	/* Without a size (a tmpfs may have none) nobody can tell. */
	if (fstatvfs(l->disk_fd, &v) < 0 || !v.f_blocks)
		return false;
	blocks = geteuid() == 0 ? v.f_bfree : v.f_bavail;
	return blocks * v.f_frsize < layer_frame_bytes(l, id) &&
	       !room_make(l, id);
}

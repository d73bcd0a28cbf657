/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The local cache of fetched frames
 *
 *	DIR/<image id>/<offset>-<stored>	one frame as stored
 *
 * Many threads; a budget that is kept; least recently used goes first. A frame
 * is written beside and renamed, so there are no halves; digests are checked by
 * who reads (frame_decode), and cache_forget() drops what failed. Best effort:
 * a full or broken disk costs nothing but the cache, which then rests for some
 * seconds, and gives up what others need more (cache_make_way).
 */
#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct cache;

struct cache_counts {
	uint64_t hits, misses, written_bytes, evicted_bytes, bad, errors;
	uint64_t bytes; /* now */
	uint64_t budget;
};

/* Reads what is there; more than @budget bytes (of disk blocks) are evicted at
 * once. @budget 0: nothing is kept. */
int cache_open(const char *dir, uint64_t budget, struct cache **ret,
	       struct err *e) must_check;
struct cache *cache_free(struct cache *c);

/* True: @p holds @len bytes (not verified). */
bool cache_get(struct cache *c, const char *image, uint64_t offset,
	       uint32_t len, void *p);
void cache_put(struct cache *c, const char *image, uint64_t offset,
	       uint32_t len, const void *p);
void cache_forget(struct cache *c, const char *image, uint64_t offset,
		  uint32_t len);
/* The disk is full, and the file @fd needs room: what was used least recently
 * goes, @bytes of it at least, or all there is; nothing new is kept for some
 * seconds. Returns the bytes that went; 0: none were left, or they are on another
 * file system. */
uint64_t cache_make_way(struct cache *c, int fd, uint64_t bytes);
struct cache_counts cache_counts(struct cache *c);

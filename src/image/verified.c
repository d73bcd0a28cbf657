/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which files this process has verified
 *
 * Hashing an image takes a good part of a second; it is done once per content,
 * not once per sandbox. An entry says: the file with this identity (see
 * image/file.h) has this digest. Whoever asks brings the digest that the
 * manifest demands, so a manifest that was changed gains nothing.
 *
 * Invariants:
 *  1. An entry is added only after the file was hashed whole, and had the same
 *     identity before and after.
 *  2. Entries are never wrong, only absent: the oldest goes when the table is
 *     full, and a file that changed has another identity.
 *
 * A plain array, searched in order: 1024 entries take a few microseconds, six
 * times per opened image. It is the one thing of this folder that the whole
 * process shares, since workers open images side by side; the mutex covers all
 * of it and is held for the search only.
 */
#include "image/verified.h"

#include "base/digest.h"
#include "image/file.h"

#include <pthread.h>
#include <string.h>

struct verified_entry {
	struct file_id id;
	char sha256[DIGEST_HEX];
};

struct verified {
	pthread_mutex_t lock; /* over everything below */
	struct verified_entry entry[VERIFIED_MAX];
	unsigned n;
	unsigned next; /* to be written, and the oldest once n is the maximum */
};

static struct verified verified = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* The lock is held. */
static bool verified_find(const struct verified *v, const struct file_id *id,
			  const char *sha256)
{
	for (unsigned i = 0; i < v->n; i++)
		if (file_id_same(&v->entry[i].id, id) &&
		    !strcmp(v->entry[i].sha256, sha256))
			return true;
	return false;
}

bool verified_has(const struct file_id *id, const char *sha256)
{
	bool found;

	must(!pthread_mutex_lock(&verified.lock));
	found = verified_find(&verified, id, sha256);
	must(!pthread_mutex_unlock(&verified.lock));
	return found;
}

void verified_add(const struct file_id *id, const char *sha256)
{
	struct verified *v = &verified;
	struct verified_entry entry = { .id = *id };

	must(strlen(sha256) == DIGEST_HEX - 1);
	memcpy(entry.sha256, sha256, DIGEST_HEX);
	must(!pthread_mutex_lock(&v->lock));
	if (!verified_find(v, id, sha256)) {
		v->entry[v->next] = entry;
		v->next = (v->next + 1) % VERIFIED_MAX;
		v->n = min(v->n + 1, VERIFIED_MAX);
	}
	must(!pthread_mutex_unlock(&v->lock));
}

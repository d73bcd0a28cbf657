/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The inside of the templates, for the files of this folder
 */
#include "base/clock.h"
#include "base/err.h"
#include "base/list.h"
#include "base/loop.h"
#include "image/image.h"
#include "sandbox/db.h"
#include "template/template.h"

#include <stdbool.h>
#include <stddef.h>

/* Templates of one host; each keeps some fds open. */
#define TEMPLATES_MAX 256
/* Transfers at a time: two keep a link busy, and leave the daemon's workers to
 * its creates. */
#define TEMPLATES_SLOW_WORKERS 2
/* A disk that was full may have room again. */
#define TEMPLATES_AGAIN_NS (60 * NS_PER_SEC)

struct template
{
	struct templates *owner;
	struct db_template row;
	char *path; /* ROOT/images/<row.dir> */
	struct image *image; /* OPEN */
	struct image_manifest *manifest; /* as last read; may be NULL */
	char remote[IMAGE_REMOTE_MAX]; /* store it streams from; "": here */
	bool opening;
	bool removed; /* forgotten while opening */
	bool held; /* its files are being completed */
	/* Forgotten by the pager, but guests still run on it. */
	struct pager_layer *waning;
	struct loop_timer wane;
	struct loop_timer again; /* to complete what the pager says is whole */
	uint64_t again_ns; /* the last pause; 0: none so far */
	char problem[ERR_MSG_MAX];
	struct list waiters;
};

struct templates {
	struct loop *loop;
	struct worker *worker;
	struct worker *slow; /* for what takes minutes */
	struct vmm_host *host;
	struct pager *pager; /* NULL: nothing is streamed */
	struct db *db;
	char *root;
	char *dir; /* ROOT/images */
	struct template *entry[TEMPLATES_MAX];
	size_t n;
	uint64_t again_ns; /* the first of those pauses */
	bool ending; /* jobs that are still under way leave quietly */
};

/* templates.c */
struct template *template_find(const struct templates *t, const char *name);
/* By its image directory, below ROOT/images or as a path. */
struct template *template_find_dir(const struct templates *t, const char *dir);
/* Open its image (again); what is open meanwhile is still handed out. */
int template_open(struct template *p) must_check;

/* remote.c */
/* What the directory says, for an image that is not open. */
void template_read_remote(struct template *p);
/* What guests stream from, or did; NULL: nothing. */
struct pager_layer *template_layer(const struct template *p);
/* The image is local, or going: the pager need not keep its layer. */
void template_forget(struct template *p);
/* Give up what is left of a forgotten layer. Idempotent. */
void template_wane_end(struct template *p);
void template_info_remote(const struct template *p, struct template_info *info);

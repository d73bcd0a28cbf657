/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Tables with aligned columns, for people
 */
#include "base/must.h"

#include <stdbool.h>

#define TABLE_COLUMNS_MAX 16

struct table {
	unsigned n_columns;
	bool right[TABLE_COLUMNS_MAX]; /* numbers */
	char **cells; /* rows of n_columns */
	size_t n_cells, size;
	bool failed; /* out of memory; said by table_print() */
};

/* @head: names of the columns, separated by '|'; one that starts with '>' is
 * aligned to the right. */
void table_init(struct table *t, const char *head);
void table_deinit(struct table *t);

/* The next cell, from left to right. Control characters are made harmless. */
void table_add(struct table *t, const char *fmt, ...) printf_like(2, 3);

/* On stdout. */
void table_print(const struct table *t);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables with aligned columns
 *
 * All cells are collected, then each column is as wide as its widest cell, two
 * blanks between them, none behind the last. Cells may carry what a guest or a
 * file's name says, so bytes that a terminal would obey are replaced here.
 *
 * Width is counted in characters of UTF-8, which is right for what byre itself
 * prints and near enough for the rest.
 */
#include "cmd/table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One cell; a cause is the longest. */
#define TABLE_CELL_MAX 512

static void table_put(struct table *t, const char *text)
{
	size_t size = t->size ? 2 * t->size : 64;
	char **cells;

	if (t->n_cells == t->size) {
		cells = reallocarray(t->cells, size, sizeof(*cells));
		t->failed |= !cells;
		if (!cells)
			return;
		t->cells = cells;
		t->size = size;
	}
	t->cells[t->n_cells] = strdup(text);
	t->failed |= !t->cells[t->n_cells];
	if (t->cells[t->n_cells])
		t->n_cells++;
}

void table_init(struct table *t, const char *head)
{
	char name[TABLE_CELL_MAX];
	size_t len;

	*t = (struct table){ 0 };
	for (;; head += len + 1) {
		must(t->n_columns < TABLE_COLUMNS_MAX);
		t->right[t->n_columns++] = *head == '>';
		head += *head == '>';
		len = strcspn(head, "|");
		snprintf(name, sizeof(name), "%.*s", (int)len, head);
		table_put(t, name);
		if (!head[len])
			return;
	}
}

void table_deinit(struct table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cells[i]);
	free(t->cells);
	*t = (struct table){ 0 };
}

void table_add(struct table *t, const char *fmt, ...)
{
	char text[TABLE_CELL_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	table_put(t, text);
}

static int table_width(const char *s)
{
	int n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void table_row(const struct table *t, char *const *row, const int *width)
{
	for (unsigned c = 0; c < t->n_columns; c++) {
		int pad = width[c] - table_width(row[c]);
		bool last = c + 1 == t->n_columns;

		if (t->right[c])
			printf("%*s%s", pad, "", row[c]);
		else
			printf("%s%*s", row[c], last ? 0 : pad, "");
		fputs(last ? "\n" : "  ", stdout);
	}
}

void table_print(const struct table *t)
{
	int width[TABLE_COLUMNS_MAX] = { 0 };

	if (t->failed) {
		puts("(out of memory)");
		return;
	}
	for (size_t i = 0; i < t->n_cells; i++)
		width[i % t->n_columns] =
			max(width[i % t->n_columns], table_width(t->cells[i]));
	for (size_t i = 0; i + t->n_columns <= t->n_cells; i += t->n_columns)
		table_row(t, t->cells + i, width);
}

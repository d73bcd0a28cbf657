/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Templates as the API shows them
 */
#include <jansson.h>

struct template_info;
struct templates;

/* NULL when out of memory. */
json_t *template_json(const struct template_info *t);
/* By name; NULL when there is none, too. */
json_t *template_json_find(struct templates *t, const char *name);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Problem documents (RFC 9457): how an error looks on the wire
 */
#include <jansson.h>

#define PROBLEM_TYPE "application/problem+json"

/* HTTP status for a positive errno. */
unsigned problem_status(int code);

/* The document; NULL when out of memory. */
json_t *problem_json(unsigned status, int code, const char *detail);

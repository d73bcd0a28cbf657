/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The ledger on a terminal
 */
#include <jansson.h>

/* A ledger as GET /v1/mem gives it; with "processes" as mem_pid() does. */
void mem_print(const json_t *ledger);
/* What the pager counts (GET /v1/pager). */
void mem_print_pager(const json_t *pager);

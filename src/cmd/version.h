/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The version of this program
 */
#ifndef BYRE_VERSION
#define BYRE_VERSION "0.1.0"
#endif

/* "byre 0.1.0" on stdout. */
void version_print(void);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Saying the version
 */

/* "byre 0.1.0" on stdout. */
void version_print(void);

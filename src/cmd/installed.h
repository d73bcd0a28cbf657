/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Files that come with the program
 */

/* @name ("guest", "libbyre-gmem.so") beside the program (a build), else where
 * "make install" puts it. Fresh memory; NULL when out of it. */
char *installed_path(const char *name);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Verbs that end something the daemon knows by its name: VERB rm NAME
 */
struct cmd;

/* The whole of such a verb's run: DELETE @path + NAME. @what is for sentences,
 * "template". */
int forget_main(const struct cmd *c, const char *path, const char *what,
		int argc, char **argv);

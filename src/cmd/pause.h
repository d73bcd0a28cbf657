/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * What pause and resume share
 */
struct cmd;

/* The verb @c with its arguments: POST ID/VERB. */
int pause_or_resume(const struct cmd *c, int argc, char **argv);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre resume: let a paused sandbox go on
 */
#include "cmd/cmd.h"
#include "cmd/pause.h"

static int resume_main(int argc, char **argv)
{
	return pause_or_resume(&cmd_resume, argc, argv);
}

const struct cmd cmd_resume = {
	.name = "resume",
	.args = "[--json] ID",
	.summary = "Let a paused sandbox go on.",
	.run = resume_main,
};

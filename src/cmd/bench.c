/* SPDX-License-Identifier: Apache-2.0 */
/*
 * byre bench: what this host gives
 *
 *	create   how long from asking for a sandbox to its first answer
 *	density  what each further sandbox costs
 *	stream   a cold host that streams a template, against a warm one
 *
 * The client's part is inside the measure: a user waits for it, too. The
 * command goes through the stream API in this process; starting a program for
 * each would measure the starting of programs.
 */
#include "cmd/bench.h"

#include "cmd/client.h"
#include "cmd/cmd.h"
#include "cmd/create.h"
#include "cmd/print.h"
#include "cmd/stream.h"
#include "base/clock.h"
#include "base/guard.h"

#include <errno.h>

static int bench_command(const char *id, const char *command, struct err *e)
{
	const char *const argv[] = { "sh", "-c", command ? command : "echo ok",
				     NULL };
	guard(stream_deinit) struct stream s = STREAM_NULL;
	struct stream_result result = { 0 };
	int r;

	r = stream_connect(&s, id, e);
	if (r < 0)
		return err_prefix(e, "run '%s' in %s", argv[2], id);
	r = stream_command(&s, argv, &result, e);
	if (r < 0)
		return r;
	if (result.has_code && !result.code)
		return 0;
	if (result.error)
		return err_set(e, result.error, "run '%s' in %s: %s", argv[2],
			       id, result.message);
	return err_set(e, EIO, "run '%s' in %s: it failed (%s %d)", argv[2], id,
		       result.signal ? "signal" : "exit code",
		       result.signal ? result.signal : result.code);
}

int bench_start(const struct bench_sandbox *b, json_t **ret,
		struct bench_times *ret_times, struct err *e)
{
	const struct create_options none = { 0 };
	struct bench_times t = { 0 };
	int r;

	t.start_ns = clock_mono_ns();
	r = create_sandbox(b->template, &none, ret, e);
	t.created_ns = clock_mono_ns();
	if (r == 0)
		r = bench_command(print_text(*ret, "id"), b->command, e);
	t.answered_ns = clock_mono_ns();
	*ret_times = t;
	return r;
}

int bench_template(const char *name, json_t **ret, struct err *e)
{
	guard_free char *path = client_path("/v1/templates/", name, "");

	if (!path)
		return err_errno(e, ENOMEM, "look at template %s", name);
	return client_call("GET", path, NULL, ret, e);
}

static int bench_main(int argc, char **argv)
{
	static const struct cmd *const subs[] = { &bench_create, &bench_density,
						  &bench_stream, NULL };

	return cmd_dispatch(&cmd_bench, subs, argc, argv);
}

const struct cmd cmd_bench = {
	.name = "bench",
	.args = "create|density|stream [OPTION]... --template T -n N",
	.summary = "Measure what this host gives.",
	.run = bench_main,
};

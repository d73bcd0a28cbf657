/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool: every job runs once, is done once, on the right thread
 */
#include "base/worker.h"

#include "base/test.h"

#include <pthread.h>
#include <signal.h>

struct work {
	struct worker *pool;
	struct worker_job job;
	pthread_t main;
	int runs, dones;
	int again; /* submit so many times more */
	bool elsewhere, blocked;
};

static int works_done;

static void work_run(struct worker_job *job)
{
	struct work *w = container_of(job, struct work, job);
	sigset_t mask;

	sigemptyset(&mask);
	w->runs++;
	w->elsewhere = !pthread_equal(pthread_self(), w->main);
	w->blocked = pthread_sigmask(SIG_SETMASK, NULL, &mask) == 0 &&
		     sigismember(&mask, SIGTERM) == 1 &&
		     sigismember(&mask, SIGCHLD) == 1;
	if (w->runs % 3 == 0)
		usleep(100);
}

static void work_done(struct worker_job *job)
{
	struct work *w = container_of(job, struct work, job);

	check(pthread_equal(pthread_self(), w->main));
	check(w->elsewhere && w->blocked);
	w->dones++;
	works_done++;
	check(w->runs == w->dones);
	if (w->again-- > 0)
		worker_submit(w->pool, &w->job, work_run, work_done);
}

static struct work works[200];

static void test_submit(struct worker *pool, int again)
{
	works_done = 0;
	for (size_t i = 0; i < nitems(works); i++) {
		works[i] = (struct work){ .pool = pool,
					  .main = pthread_self(),
					  .again = again };
		worker_submit(pool, &works[i].job, work_run, work_done);
	}
}

static void test_free_inside(struct worker_job *job)
{
	worker_free(container_of(job, struct work, job)->pool);
}

static void test_free_in_done(void)
{
	struct loop l;
	struct work w = { 0 };

	if (loop_init(&l, NULL) < 0 || worker_new(&l, 1, &w.pool, NULL) < 0)
		return;
	worker_submit(w.pool, &w.job, work_run, test_free_inside);
	if (loop_turn(&l, -1, NULL) < 0)
		return;
}

int main(void)
{
	struct worker *pool = NULL;
	struct err e = ERR_NULL;
	sigset_t before, after;
	struct loop l;

	/* Before there are threads: a child has only the one that forks. */
	check(test_dies(test_free_in_done));
	check(loop_init(&l, &e) == 0);
	check(pthread_sigmask(SIG_SETMASK, NULL, &before) == 0);
	check(worker_new(&l, 4, &pool, &e) == 0);
	check(pthread_sigmask(SIG_SETMASK, NULL, &after) == 0);
	check(sigismember(&before, SIGTERM) == sigismember(&after, SIGTERM));

	test_submit(pool, 2);
	while (works_done < 3 * (int)nitems(works))
		check(loop_turn(&l, 10000, &e) == 0);
	check(loop_turn(&l, 0, &e) == 0);
	check(works_done == 3 * (int)nitems(works));

	/* Not one turn of the loop: worker_free does it all, also what the
	 * done()s add. */
	test_submit(pool, 1);
	check(!worker_free(pool));
	check(works_done == 2 * (int)nitems(works));
	for (size_t i = 0; i < nitems(works); i++)
		check(works[i].runs == 2 && works[i].dones == 2);

	/* Idle ones end too. */
	check(worker_new(&l, 2, &pool, &e) == 0);
	check(!worker_free(pool));
	check(!worker_free(NULL));
	loop_deinit(&l);
	return 0;
}

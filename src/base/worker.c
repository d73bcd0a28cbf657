/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Work that would block the loop: a small pool of threads
 *
 *	loop:    submit -> [queue] -> a thread: run() -> [finished] -> eventfd
 *	loop:    eventfd readable -> done(), in the order of finishing
 *
 * Invariants:
 *  1. A job is in exactly one place: the queue, a thread's hands, the finished
 *     list, or its owner's. `next` belongs to the lists, the rest to the job.
 *  2. The mutex guards the two lists and `ending`; run() and done() are called
 *     without it. Handing a job over under the mutex is what makes the job's
 *     own data visible to the other side.
 *  3. n_jobs (submitted, done() not yet called) is touched by the loop's
 *     thread only.
 *  4. Pool threads block every signal, so a signalfd in the loop and the
 *     program's handlers see them all.
 *
 * The queue has no maximum of its own: jobs are embedded in objects that are
 * themselves admitted (a sandbox, a request), so those limits hold here too.
 *
 * It is not a scheduler: no priorities, no cancelling, no timeouts.
 */
#include "base/worker.h"

#include "base/guard.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

struct worker_queue {
	struct worker_job *head;
	struct worker_job **tail;
};

struct worker {
	struct loop *loop;
	struct loop_fd source;
	int event_fd;

	pthread_mutex_t mutex;
	pthread_cond_t wake; /* the queue has something, or we end */
	struct worker_queue queue;
	struct worker_queue finished;
	bool ending;

	size_t n_jobs;
	bool in_done;
	unsigned n_threads;
	pthread_t threads[];
};

static void worker_queue_init(struct worker_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void worker_queue_add(struct worker_queue *q, struct worker_job *job)
{
	job->next = NULL;
	*q->tail = job;
	q->tail = &job->next;
}

static struct worker_job *worker_queue_take(struct worker_queue *q)
{
	struct worker_job *job = q->head;

	if (!job)
		return NULL;
	q->head = job->next;
	if (!q->head)
		q->tail = &q->head;
	job->next = NULL;
	return job;
}

/* A failing mutex call means the mutex is not one: a bug, like EBADF. */
static void worker_lock(struct worker *w)
{
	must(pthread_mutex_lock(&w->mutex) == 0);
}

static void worker_unlock(struct worker *w)
{
	must(pthread_mutex_unlock(&w->mutex) == 0);
}

static void *worker_thread(void *arg)
{
	struct worker *w = arg;
	struct worker_job *job;
	uint64_t one = 1;

	worker_lock(w);
	for (;;) {
		while (!w->queue.head && !w->ending)
			must(pthread_cond_wait(&w->wake, &w->mutex) == 0);
		job = worker_queue_take(&w->queue);
		if (!job)
			break;
		worker_unlock(w);
		job->run(job);
		worker_lock(w);
		worker_queue_add(&w->finished, job);
		/* EAGAIN would take 2^64 unread jobs; nothing else can be. */
		must(write(w->event_fd, &one, sizeof(one)) == sizeof(one));
	}
	worker_unlock(w);
	return NULL;
}

static void worker_run_done(struct worker *w)
{
	struct worker_job *job;
	uint64_t count = 0;

	/* Before looking at the list: a job that finishes after the look sets
	 * the eventfd again. EAGAIN means there was nothing, which is fine. */
	must(read(w->event_fd, &count, sizeof(count)) == sizeof(count) ||
	     errno == EAGAIN);
	w->in_done = true;
	for (;;) {
		worker_lock(w);
		job = worker_queue_take(&w->finished);
		worker_unlock(w);
		if (!job)
			break;
		must(w->n_jobs > 0);
		w->n_jobs--;
		job->done(job);
	}
	w->in_done = false;
}

static void worker_ready(struct loop_fd *f, unused uint32_t events)
{
	worker_run_done(container_of(f, struct worker, source));
}

/* Threads inherit the mask of their maker. */
static int worker_start(struct worker *w, unsigned threads)
{
	sigset_t all, old;
	int r = 0;

	sigfillset(&all);
	must(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
	while (w->n_threads < threads && r == 0) {
		r = pthread_create(&w->threads[w->n_threads], NULL,
				   worker_thread, w);
		if (r == 0) {
			/* A name is for ps only; it cannot matter. */
			err_drop(pthread_setname_np(w->threads[w->n_threads],
						    "byre-worker"));
			w->n_threads++;
		}
	}
	must(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
	return -r;
}

static void worker_freep(struct worker **w)
{
	worker_free(*w);
}

int worker_new(struct loop *l, unsigned threads, struct worker **ret,
	       struct err *e)
{
	guard(worker_freep) struct worker *w = NULL;
	int r;

	must(threads > 0);
	w = calloc(1, sizeof(*w) + threads * sizeof(w->threads[0]));
	if (!w)
		return err_errno(e, ENOMEM, "make a pool of %u threads",
				 threads);
	w->loop = l;
	w->source = (struct loop_fd)LOOP_FD_NULL;
	worker_queue_init(&w->queue);
	worker_queue_init(&w->finished);
	must(pthread_mutex_init(&w->mutex, NULL) == 0);
	must(pthread_cond_init(&w->wake, NULL) == 0);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event_fd < 0)
		return err_errno(e, errno, "create an eventfd");
	r = loop_fd_add(l, &w->source, w->event_fd, EPOLLIN, worker_ready);
	if (r < 0)
		return err_errno(e, -r, "watch an eventfd");
	r = worker_start(w, threads);
	if (r < 0)
		return err_errno(e, -r, "start thread %u of %u",
				 w->n_threads + 1, threads);
	*ret = take(w);
	return 0;
}

struct worker *worker_free(struct worker *w)
{
	if (!w)
		return NULL;
	must(!w->in_done);
	/* While the threads live, so that a done() may submit once more. */
	while (w->n_jobs) {
		struct pollfd p = { .fd = w->event_fd, .events = POLLIN };

		must(poll(&p, 1, -1) >= 0 || errno == EINTR || errno == ENOMEM);
		worker_run_done(w);
	}
	worker_lock(w);
	w->ending = true;
	must(pthread_cond_broadcast(&w->wake) == 0);
	worker_unlock(w);
	for (unsigned i = 0; i < w->n_threads; i++)
		must(pthread_join(w->threads[i], NULL) == 0);
	must(!w->queue.head && !w->finished.head);
	loop_fd_del(&w->source);
	fd_close(&w->event_fd);
	must(pthread_cond_destroy(&w->wake) == 0);
	must(pthread_mutex_destroy(&w->mutex) == 0);
	free(w);
	return NULL;
}

void worker_submit(struct worker *w, struct worker_job *job, worker_fn run,
		   worker_fn done)
{
	job->run = run;
	job->done = done;
	w->n_jobs++;
	worker_lock(w);
	worker_queue_add(&w->queue, job);
	must(pthread_cond_signal(&w->wake) == 0);
	worker_unlock(w);
}

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * The handlers, one per line of the table in route.c
 *
 * Each is called once with the whole request and answers it (request.h).
 */
struct request;

/* host.c */
void handle_host(struct request *rq);

/* templates.c */
void handle_templates(struct request *rq);
void handle_template(struct request *rq);
void handle_template_remove(struct request *rq);
void handle_template_evict(struct request *rq);

/* bakes.c */
void handle_bake(struct request *rq);

/* stores.c */
void handle_stores(struct request *rq);
void handle_store_add(struct request *rq);
void handle_store_remove(struct request *rq);

/* transfers.c */
void handle_push(struct request *rq);
void handle_pull(struct request *rq);

/* sandboxes.c */
void handle_sandboxes(struct request *rq);
void handle_sandbox_create(struct request *rq);
void handle_sandbox(struct request *rq);
void handle_sandbox_remove(struct request *rq);
void handle_sandbox_pause(struct request *rq);
void handle_sandbox_resume(struct request *rq);

/* logs.c */
void handle_logs(struct request *rq);

/* upgrade.c */
void handle_stream(struct request *rq);

/* mem.c */
void handle_mem(struct request *rq);

/* pager.c */
void handle_pager(struct request *rq);

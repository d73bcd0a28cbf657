/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Which handler answers a request
 */
struct request;

/* Calls the handler, or answers 400, 404 or 405. */
void route_call(struct request *rq);

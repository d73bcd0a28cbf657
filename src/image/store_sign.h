/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/*
 * Signatures of S3 requests, version 4 (internal to the stores)
 */
#include "base/digest.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct credentials;

/* "20130524T000000Z" */
#define SIGN_DATE_MAX 17
/* Key, region and a few fixed words. */
#define SIGN_AUTHORIZATION_MAX 512

struct sign {
	const char *method;
	const char *host; /* as in the Host header */
	const char *path; /* of the URL, escaped */
	const char *query; /* name=value&..., escaped and sorted; "": none */
	const char *region;
	char payload[DIGEST_HEX]; /* of the body */
};

void sign_date(uint64_t real_ns, char date[SIGN_DATE_MAX]);
/* Signs host, x-amz-content-sha256, x-amz-date and, if there is a token,
 * x-amz-security-token. @out: the value of the Authorization header. */
void sign_v4(const struct sign *s, const struct credentials *c,
	     const char date[SIGN_DATE_MAX], char out[SIGN_AUTHORIZATION_MAX]);

/* Percent-escape what is not A-Za-z0-9-._~; false when it does not fit. */
bool sign_escape(const char *s, char *out, size_t size);

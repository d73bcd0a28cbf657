/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures of S3 requests, version 4
 *
 *	request	 = method \n path \n query \n headers \n names \n payload
 *	to sign	 = "AWS4-HMAC-SHA256" \n date \n scope \n SHA256(request)
 *	key	 = HMAC(HMAC(HMAC(HMAC("AWS4" secret, day), region), "s3"),
 *		   "aws4_request")
 *	signature = HMAC(key, to sign)
 *
 * libcurl can sign too (CURLOPT_AWS_SIGV4), but version 7.88 leaves out
 * x-amz-content-sha256, without which servers refuse (tried: HTTP 400), and
 * keeps copies of the secret that we cannot wipe. This is a page.
 *
 * Invariants:
 *  1. Secrets and what is derived from them are wiped before returning.
 *  2. Every signature covers the host, the time and the digest of the body.
 *     Range is not covered, so a proxy may not change bytes unseen only
 *     because digests are checked above us.
 *  3. Inputs have bounds that the callers' own maxima guarantee: names are
 *     checked objects, so nothing is ever cut.
 */
/* First: its headers spell __attribute__((unused)), see must.h. */
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "image/store_sign.h"

#include "base/clock.h"
#include "base/parse.h"
#include "image/store_credentials.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SIGN_BYTES 32
/* URL, query and token at their longest. */
#define SIGN_REQUEST_MAX 12288

static void sign_hmac(const void *key, size_t key_len, const char *text,
		      unsigned char out[SIGN_BYTES])
{
	unsigned len = 0;

	/* Fails for want of a few hundred bytes only. */
	must(HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text,
		  strlen(text), out, &len));
	must(len == SIGN_BYTES);
}

static void sign_key(const char *secret, const char *day, const char *region,
		     unsigned char key[SIGN_BYTES])
{
	char first[4 + CREDENTIALS_SECRET_MAX];

	snprintf(first, sizeof(first), "AWS4%s", secret);
	sign_hmac(first, strlen(first), day, key);
	sign_hmac(key, SIGN_BYTES, region, key);
	sign_hmac(key, SIGN_BYTES, "s3", key);
	sign_hmac(key, SIGN_BYTES, "aws4_request", key);
	explicit_bzero(first, sizeof(first));
}

void sign_date(uint64_t real_ns, char date[SIGN_DATE_MAX])
{
	time_t now = (time_t)(real_ns / NS_PER_SEC);
	struct tm tm = { 0 };

	must(gmtime_r(&now, &tm));
	must(strftime(date, SIGN_DATE_MAX, "%Y%m%dT%H%M%SZ", &tm));
}

/* Digest of the canonical request; @names: of the signed headers. */
static void sign_request(const struct sign *s, const struct credentials *c,
			 const char *date, const char *names,
			 char hex[DIGEST_HEX])
{
	char text[SIGN_REQUEST_MAX];
	int n = snprintf(text, sizeof(text),
			 "%s\n%s\n%s\nhost:%s\nx-amz-content-sha256:%s\n"
			 "x-amz-date:%s\n%s%s%s\n%s\n%s",
			 s->method, s->path, s->query, s->host, s->payload,
			 date, c->token[0] ? "x-amz-security-token:" : "",
			 c->token, c->token[0] ? "\n" : "", names, s->payload);

	must(n > 0 && (size_t)n < sizeof(text));
	digest_of(text, (size_t)n, hex);
	explicit_bzero(text, sizeof(text));
}

void sign_v4(const struct sign *s, const struct credentials *c,
	     const char date[SIGN_DATE_MAX], char out[SIGN_AUTHORIZATION_MAX])
{
	const char *names =
		c->token[0]
			? "host;x-amz-content-sha256;x-amz-date;x-amz-security-token"
			: "host;x-amz-content-sha256;x-amz-date";
	char day[9] = { 0 }, scope[128], text[512], hex[DIGEST_HEX];
	unsigned char key[SIGN_BYTES];
	int n;

	memcpy(day, date, 8);
	snprintf(scope, sizeof(scope), "%s/%s/s3/aws4_request", day, s->region);
	sign_request(s, c, date, names, hex);
	snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s", date,
		 scope, hex);
	sign_key(c->secret, day, s->region, key);
	sign_hmac(key, sizeof(key), text, key);
	format_hex(key, sizeof(key), hex);
	explicit_bzero(key, sizeof(key));
	n = snprintf(
		out, SIGN_AUTHORIZATION_MAX,
		"AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=%s,Signature=%s",
		c->key, scope, names, hex);
	must(n > 0 && n < SIGN_AUTHORIZATION_MAX);
}

bool sign_escape(const char *s, char *out, size_t size)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmn"
				    "opqrstuvwxyz0123456789-._~";
	size_t len = 0;

	for (; *s; s++) {
		bool as_is = strchr(plain, *s);

		if (len + (as_is ? 2 : 4) > size)
			return false;
		if (as_is)
			out[len++] = *s;
		else
			len += (size_t)sprintf(out + len, "%%%02X",
					       (unsigned char)*s);
	}
	if (len >= size)
		return false;
	out[len] = '\0';
	return true;
}

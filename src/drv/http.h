/* Outgoing HTTP to nodes: libcurl's multi interface in the libuv loop.
 *
 * No proxy is ever used, whatever the environment says; no redirect is followed; only numeric
 * addresses, so nothing resolves names. Connections are kept alive per node: when one turns out to
 * have been closed by the node before a byte of the answer came, a HEAD or GET is repeated on a new
 * connection (so a node that is gone is HTTP_REFUSED, not HTTP_BROKEN). A POST always gets a new
 * connection, and is sent at most once. Only processes of our own user are believed: an answer of
 * another's is HTTP_BROKEN. */
#pragma once

#include <uv.h>

#include "base/err.h"

struct http;
struct http_request;

enum http_result {
	HTTP_OK,      /* a response came, whatever its status */
	HTTP_REFUSED, /* nobody listens (also: we were connected to ourselves) */
	HTTP_TIMEOUT,
	HTTP_BROKEN,    /* reset, garbage, too long; `error` says what */
	HTTP_NOT_ASKED, /* for lack of descriptors, memory or ports of our own: says nothing of the
			   node; `own_errno` says which */
};

struct http_response {
	enum http_result result;
	int status;
	const char *body; /* NUL-terminated; valid during the callback */
	size_t body_len;
	bool cluster_good;   /* X-h2o-cluster-good; true when absent */
	uint64_t cluster_id; /* X-h2o-cluster-id: boot time of that node, ms; 0 when absent */
	const char *error;   /* NULL for HTTP_OK; else a sentence; valid during the callback */
	int own_errno;       /* of HTTP_NOT_ASKED: a positive errno */
};

typedef void (*http_cb)(const struct http_response *rsp, void *arg);

struct http_spec {
	const char *url;     /* http://<numeric address>:port/... */
	const char *method;  /* "HEAD", "GET", "POST" */
	const char *form;    /* body of a POST, application/x-www-form-urlencoded; NULL: empty */
	uint64_t timeout_ms; /* for all of it; not 0. Time in which the loop stood still (this
				process was stopped) is added. */
	size_t max_body;     /* longer answers are HTTP_BROKEN; 0: 4 MiB */
	bool fresh;          /* on a new connection */
};

/* In place of curl_global_init(), before any other call of libcurl in the process; may be repeated,
 * each with its curl_global_cleanup(). libcurl 7.88 does not survive every lack of memory (it
 * divides by the size of a table that it did not get): so that, too, ends us with a message, as in
 * base/util.h. `tls`: also what TLS needs. -ENOMEM. */
int http_begin(bool tls);

int http_new(uv_loop_t *loop, struct http **out, struct err *e);

/* May be called from a request's callback. Cancels what is on its way (without callbacks) and
 * closes all handles. */
void http_free(struct http *h);

/* The callback is called exactly once, never from within this call, unless cancelled. *out (`out`
 * may be NULL) is valid until it returns. -EINVAL for another method, a URL with a name in it, or
 * no timeout; -ENOMEM. */
int http_start(struct http *h, const struct http_spec *spec, http_cb cb, void *arg,
	struct http_request **out);

/* The callback is not called any more. Nothing when it is running already. */
void http_cancel(struct http_request *r);

/* Percent-encodes for a URL or form value; owned by the caller. */
char *http_escape(const char *s);

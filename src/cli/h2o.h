/* Requests to the H2O of a cloud, at its endpoint: what H2OConnection.request() of Python does. The
 * one place that speaks HTTP to a cloud; blocking, for one request at a time. No proxy is used,
 * whatever the environment says. */
#pragma once

#include <jansson.h>

#include "cli/client.h"

struct h2o {
	struct cli *cli;
	char *name;     /* of the cloud */
	char *url;      /* of its endpoint, without a slash at the end */
	char *auth;     /* "user:password", or NULL */
	char *cookies;  /* "a=b; c=d", or NULL; those that H2O sets are sent back besides */
	const char *ca; /* a file of certificates to be trusted; NULL: the system's */
	bool insecure;  /* trust whoever answers */
	FILE *trace;    /* where requests and answers are told; NULL: nowhere */
	bool quiet;     /* says nothing of locking */
	bool lock_told; /* it was said, or the cloud is known to be locked */
	void *share;    /* of libcurl: connections, cookies */
	void *easy;     /* of the newest request */
	unsigned count; /* requests so far */
};

struct h2o_request {
	const char *method;
	const char *path;        /* "/3/Cloud"; may have a query of its own */
	const struct strv *data; /* "key=value": the query of HEAD, GET, DELETE and an upload, else
				    a form; or NULL */
	const char *json;        /* a body, instead of a form; or NULL */
	const char *file;        /* to be uploaded, as a form's field "file"; or NULL */
	const char *save_to; /* a good answer goes to this file ("-": the standard output) or, where
				it is a folder (or ends in a slash), into it, under the name that
				the answer has; or NULL */
	uint64_t timeout_ms; /* of all of it; 0: none */
};

struct h2o_answer {
	int status;     /* of HTTP; 0: none came */
	char *type;     /* owned: Content-Type, or NULL */
	char *text;     /* owned: the body; NULL when it was saved */
	size_t len;     /* of it */
	char *head;     /* owned: status line and headers, each with a "\n"; NULL: none came */
	json_t *json;   /* owned; NULL when it is none */
	char *saved_as; /* owned: the path, or NULL */
	struct err err; /* what is wrong, in a sentence */
	bool explained; /* and that is in H2O's own words */
};
#define H2O_ANSWER_NULL ((struct h2o_answer){0})

/* The cloud's endpoint, from the daemon. CLI_OK, or an exit code after saying what is wrong: of a
 * cloud that is not usable what `connect` says. `wake`: one that starts when somebody connects may
 * be at rest. $H2OFLEET_H2O_AUTH is "user:password" for it. */
int h2o_open(struct h2o *h, struct cli *cli, const char *cloud, bool wake);
void h2o_close(struct h2o *h);

/* Does it, after a warning where that locks a cloud that is not locked. True: the answer is good
 * (2xx). Ctrl-C ends it. */
bool h2o_ask(struct h2o *h, const struct h2o_request *rq, struct h2o_answer *a);
/* GET that ends well with JSON, or NULL with everything said and *code set. A new reference. */
json_t *h2o_get(struct h2o *h, int *code, const char *fmt, ...) _printf_(3, 4);
/* A Rapids expression; likewise. */
json_t *h2o_rapids(struct h2o *h, int *code, const char *session, const char *fmt, ...)
	_printf_(4, 5);
/* Says what is wrong with an answer; returns the exit code. */
int h2o_complain(struct h2o *h, const struct h2o_answer *a);
void h2o_answer_clear(struct h2o_answer *a);

/* Appends "key=value" as they are sent: percent-encoded. */
char *h2o_encode(const char *key, const char *value);

/* h2o_locks.c: does this request lock a cloud (no member gets in after that)? `path` may have a
 * query. */
bool h2o_locks(const char *method, const char *path);

/* h2o_save.c: a download that appears under its name only when all of it is there. What is no plain
 * file (a device, a pipe, "-" for the standard output) is written as it comes. */
struct download {
	const char *to; /* as asked */
	char *name;     /* owned: what the answer calls it, harmless; or NULL */
	char *path;     /* owned: the file that it becomes, as people know it */
	char *real;     /* owned: the same behind links; NULL where there is no part */
	char *part;     /* owned: the file that it is meanwhile; or NULL */
	int fd;         /* -1: not begun */
	uint64_t bytes;
};

/* The file's name in a Content-Disposition, with nothing in it that could lead elsewhere; NULL:
 * there is none that can be used. Owned by the caller. */
char *download_name(const char *disposition);
/* The first write makes the file (folders above it, too). 0 or a negative errno with a sentence. */
int download_write(struct download *d, const void *data, size_t n, struct err *e);
/* All of it is there. */
int download_finish(struct download *d, struct err *e);
/* Removes what is unfinished. */
void download_clear(struct download *d);

/* h2o_trace.c, in the manner of H2OConnection.start_logging(). */
void h2o_trace_request(struct h2o *h, const struct h2o_request *rq);
void h2o_trace_headers(struct h2o *h, char direction, const char *text, size_t n);
void h2o_trace_answer(struct h2o *h, const struct h2o_answer *a, uint64_t took_ms);

/* connect.c: says why there is nothing to connect to; returns the exit code. */
int connect_not_usable(struct cli *cli, const json_t *cloud);

/* Requests to the daemon: libcurl over its unix socket. Several may be on their way at once. */
#pragma once

#include <jansson.h>

#include "cli/cli.h"

struct client;

struct call {
	bool done;
	int status;      /* HTTP status; 0: no answer */
	json_t *json;    /* owned; NULL when the answer is no JSON */
	char *text;      /* owned: the body */
	struct err err;  /* -ENOTCONN: no daemon; -EPROTO: the daemon's problem; else libcurl's */
	char *again;     /* owned: see call_ask_again() */
	uint64_t cut_ms; /* when its daemon went away; 0: it did not */
	bool to_begin;   /* again, in the next turn */
	bool unreached;  /* there was no socket: judged in the next turn */
	struct client *client;
	/* Of a stream: where the bytes of a good answer go instead of `text`, and what its head
	 * said. */
	void (*sink)(const char *data, size_t n, void *arg);
	void *sink_arg;
	bool answered;        /* well, that is: status 200 */
	int64_t log_position; /* h2ofleet-Log-Position; -1: none */
	void *easy;
	char *body;    /* owned: what is sent, or NULL */
	void *headers; /* owned: with it */
	struct call *next;
};

/* Finds the socket (--socket, $H2OFLEET_SOCKET, the user's own daemon if it answers, the system's).
 * Never fails: whether somebody is there shows at the first request. */
struct client *client_new(const char *socket);
void client_free(struct client *c);
void client_freep(struct client **c);
const char *client_socket(const struct client *c);

/* Starts a request; the target is made by the format. The call lives until call_free(). */
struct call *client_begin(struct client *c, const char *method, const char *fmt, ...)
	_printf_(3, 4);
/* The same with a body (stolen), and If-Match when `etag` is not NULL. */
struct call *client_send(
	struct client *c, const char *method, const char *target, json_t *body, const char *etag);
/* A GET whose answer goes on: `sink` has it piece by piece, from within client_turn(). */
struct call *client_stream(struct client *c, const char *target,
	void (*sink)(const char *data, size_t n, void *arg), void *arg);
/* Should the daemon go away before it has answered (killed, replaced), this is asked of the next
 * one, by GET, if there is one soon. `was_there`: a moment ago there was a daemon, so an absent one
 * may be on its way. For what the daemon remembers: a command was taken, this waits for it. */
void call_ask_again(struct call *call, bool was_there, const char *fmt, ...) _printf_(3, 4);
/* Lets all requests go on for at most `timeout_ms`, until one is done. */
void client_turn(struct client *c, int timeout_ms);
/* Until this one is done, or until Ctrl-C when that is caught (cli_catch_interrupt()). */
void client_finish(struct call *call);
void call_free(struct call *call);
void call_freep(struct call **call);

/* It was done well. */
bool call_ok(const struct call *call);
/* The exit code of one that was not: of the cloud that the problem shows, if any. */
int call_exit(const struct call *call);
/* Says what is wrong with one that was not; returns call_exit(). */
int call_complain(struct cli *cli, const struct call *call);

/* GET that ends well with JSON, or NULL with everything said and *code set. */
json_t *client_get(struct cli *cli, struct client *c, int *code, const char *fmt, ...)
	_printf_(4, 5);

/* Percent-encoded for a path or a query. Owned by the caller. */
char *client_escape(const char *s);

/* interrupt.c: from now on Ctrl-C only sets a mark. */
void cli_catch_interrupt(void);
bool cli_interrupted(void);

/* What the files of the control protocol's server share; not for others.
 *
 * A request's way: server.c takes it from libmicrohttpd, routes.c finds its route and checks it,
 * handlers.c answers, at once or (waiter.c) once a cloud has got where it should. The answer is
 * kept in the request, because a suspended one is answered in another turn of the loop. */
#pragma once

#include <jansson.h>
#include <microhttpd.h>
#include <uv.h>

#include "api/acceptor.h"
#include "api/api.h"
#include "api/peer.h"
#include "drv/lag.h"

#define API_MAX_BODY  (64 * 1024)
#define API_MAX_PARAM 8

struct route;

struct param {
	const char *key;
	const char *value; /* NULL: "?wait" without a value */
};

enum wait_for { WAIT_NONE, WAIT_READY, WAIT_STOPPED, WAIT_DELETED, WAIT_JOBS };

/* Made when the request line came, freed when the request is over. */
struct request {
	struct api *api;
	struct MHD_Connection *conn;
	bool bad_url; /* holds a %00, which would end the path early, or a %2f, which would divide
			 it */
	bool begun;
	bool head; /* a HEAD: libmicrohttpd would end even its chunked body, which there is not */
	uint64_t body;   /* bytes of it that came, or will as the header says */
	char *body_text; /* owned: the first API_MAX_BODY of them; not ended by a NUL */

	const struct route *route;
	char *cloud_name; /* owned: NAME of the path, or NULL */
	char *node_index; /* owned: I of the path, or NULL */
	char *id;         /* owned: ID of the path, or NULL */
	json_t *input;    /* owned: the body, an object, of a route that takes one; or NULL */
	struct param params[API_MAX_PARAM];
	size_t n_params;

	/* The answer; status 0: none yet. */
	unsigned status;
	json_t *json;          /* owned */
	bool problem;          /* json is a problem+json */
	char *text;            /* owned: text/plain instead of json */
	const char *fixed;     /* JSON that never changes, instead of both */
	struct stream *stream; /* instead of all; the response's, once that is queued */
	const char *header;    /* one more, or NULL */
	char *header_value;    /* owned */
	char *allow;           /* owned: of a 405 */

	/* waiter.c; a waiting request is suspended and in api->waiters. */
	enum wait_for wait_for;
	bool waiting;
	bool commanded;          /* it gave the command that it waits for */
	bool moved;              /* the cloud was seen to do something since then */
	bool gone;               /* the client hung up: just close */
	uint64_t min_generation; /* readiness of an earlier one does not count */
	uint64_t timeout_ms;     /* as asked */
	uint64_t deadline_ms;    /* UINT64_MAX: none */
	uint64_t begun_ms;       /* when it began to wait */
	struct request *prev, *next;
};

struct api {
	uv_loop_t *loop;
	struct fleet *fleet; /* NULL once api_free() was called */
	struct MHD_Daemon *mhd;
	struct acceptor acceptor;
	struct peers peers;
	api_reload_fn *reload; /* or NULL */
	void *reload_arg;
	api_reexec_fn *reexec;
	void *reexec_arg;
	api_shutdown_fn *shutdown;
	void *shutdown_arg;
	uint64_t started_ms;
	struct request *waiters;
	uv_poll_t poll;       /* MHD's epoll fd */
	uv_timer_t mhd_timer; /* when MHD wants to run again */
	uv_timer_t wait_timer;
	uv_timer_t slow_timer;   /* while there are connections */
	uint64_t request_max_ms; /* in which a whole request must be there */
	bool run_asked;

	/* stream.c */
	struct journal *journal;
	struct stream *streams;
	unsigned n_streams;
	uv_timer_t stream_timer;
	uint64_t stream_look_ms; /* when the waiting ones are looked at; 0: there is none */
	uint64_t turn_end_ns;    /* of this turn of the loop; 0: nobody has read in it yet */
	uint64_t turn_ns;        /* so long all streams may read in one turn of the loop */
	uint64_t heartbeat_ms;
	bool ending;

	struct loop_lag *lag;
	unsigned open_handles;
};

/* Hung up for good; one that only ended its sending side still reads the answer. For suspended
 * connections, which libmicrohttpd does not watch. */
bool server_client_gone(struct MHD_Connection *conn);

/* Resumed connections go on in the next turn of the loop: nothing in the epoll fd tells of them. */
void server_run_soon(struct api *a);

/* routes.c: fills the answer, or leaves the request waiting. */
void route_request(struct request *rq, const char *method, const char *path);

/* `json` is taken over. */
void answer(struct request *rq, unsigned status, json_t *json);

/* Who asks. */
struct fleet_who request_who(const struct request *rq);
/* A parameter's value, or NULL when it was not given. */
const char *request_param(const struct request *rq, const char *key);
/* Of one that is yes or no (the default); answers when it is something else. */
bool request_flag(struct request *rq, const char *key);
/* Answers: "expected WANT". */
void request_bad_value(struct request *rq, const char *key, const char *value, const char *want);

/* nodes.c: the node of the path; else answers 404 and returns false. */
bool request_node(struct request *rq, unsigned *node);
/* handlers.c: `wait`, one of those that `may` holds (1 << WAIT_...), and `timeout`. Answers the
 * request when a value is wrong. Without `wait`: WAIT_NONE. */
enum wait_for request_wait(struct request *rq, unsigned may, uint64_t *timeout_ms);

/* waiter.c. Answers at once where the cloud is there already. */
void waiter_begin(struct request *rq, enum wait_for what, uint64_t timeout_ms);
void waiter_forget(struct request *rq);
void waiters_update(struct api *a, const struct cloud *c);
void waiters_end(struct api *a);
void waiters_on_timer(uv_timer_t *t);

/* jobs.c: fills the answer of a WAIT_JOBS once the jobs are known. */
void jobs_judge(struct request *rq, const struct cloud *c);

/* problem.c: an RFC 9457 answer. `type` is the last part of "urn:h2ofleet:problem:TYPE". */
void problem(struct request *rq, unsigned status, const char *type, const char *title,
	const char *detail_fmt, ...) _printf_(5, 6);
/* Adds the cloud as it is now to the problem. */
void problem_add_cloud(struct request *rq, const struct cloud *c);
void problem_no_such_cloud(struct request *rq);
/* It has failed, or is (being) stopped, and why. */
void problem_not_running(struct request *rq, const struct cloud *c);
/* It is there still, but only to be stopped. */
void problem_cloud_removed(struct request *rq);

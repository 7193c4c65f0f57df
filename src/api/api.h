/* The control protocol: HTTP/1.1 and JSON on a unix socket (libmicrohttpd in the libuv loop).
 *
 *	GET  /v1/fleet
 *	GET  /v1/version
 *	GET  /v1/healthz?settled=yes
 *	GET  /v1/config
 *	GET  /v1/openapi.json
 *	GET  /v1/clouds
 *	POST /v1/clouds with {"name": NAME, "keys": {KEY: VALUE...}, "start": true}
 *	GET  /v1/clouds/NAME
 *	DELETE /v1/clouds/NAME?wait=deleted&timeout=60s
 *	GET  /v1/clouds/NAME/config
 *	PATCH /v1/clouds/NAME/config with {"keys": {KEY: VALUE...}} and If-Match
 *	POST /v1/clouds/NAME/start?wait=ready&timeout=60s&resume=yes
 *	POST /v1/clouds/NAME/stop?wait=stopped&disarm=yes
 *	POST /v1/clouds/NAME/restart?wait=ready
 *	POST /v1/clouds/NAME/touch
 *	GET  /v1/clouds/NAME/jobs
 *	POST /v1/clouds/NAME/jobs/ID/cancel
 *	GET  /v1/clouds/NAME/nodes
 *	GET  /v1/clouds/NAME/nodes/I
 *	GET  /v1/clouds/NAME/nodes/I/log?tail=100&follow=yes&from=POSITION
 *	GET  /v1/events?since=EPOCH:SEQ&cloud=NAME&follow=yes
 *	GET  /v1/incidents?cloud=NAME&limit=N
 *	GET  /v1/incidents/ID
 *	DELETE /v1/incidents/ID
 *	POST /v1/reload?dry_run=yes&restart=yes
 *	POST /v1/reexec
 *	POST /v1/shutdown?at_once=yes
 *
 * Errors are RFC 9457 problem+json. Who may: peer credentials; root, the daemon's user, and
 * the socket's group, to which all of these are open but the last three. */
#pragma once

#include <uv.h>

#include "base/err.h"
#include "core/fleet.h"

struct api;

/* Listens on `path`: replaces the socket of a dead daemon, refuses (-EADDRINUSE) while one answers
 * or something that is no socket is there. Mode 0660. */
int api_new(
	uv_loop_t *loop, struct fleet *fleet, const char *path, struct api **out, struct err *e);

/* What POST /v1/reload does; see fleet_reload(). Without it the route answers 501. */
typedef int api_reload_fn(const struct reload_options *opts, struct reload_report *out, void *arg);
void api_set_reload(struct api *a, api_reload_fn *fn, void *arg);

/* How it stands with replacing the daemon's image. */
struct reexec_status {
	unsigned count;    /* times that this process has done it */
	bool under_way;    /* the new image is being tried */
	const char *error; /* why the last attempt came to nothing; NULL: it did not */
};

/* `begin`: POST /v1/reexec, 0 or a negative errno (-ESHUTDOWN: the daemon ends); *out always. */
typedef int api_reexec_fn(bool begin, struct reexec_status *out, void *arg);
void api_set_reexec(struct api *a, api_reexec_fn *fn, void *arg);

/* Ends the daemon as SIGTERM does; with `at_once`, as a second one. */
typedef void api_shutdown_fn(bool at_once, void *arg);
void api_set_shutdown(struct api *a, api_shutdown_fn *fn, void *arg);

/* Puts the listening socket on the list of base/handover.h. */
void api_hand_over(struct api *a);

/* Stops listening, ends streams in order, answers waiting requests with 503, removes the socket if
 * it is still ours. Before fleet_free(), in the same turn of the loop: the fleet knows its observer
 * until then. The loop must run on until the handles are closed. NULL is well. */
void api_free(struct api *a);

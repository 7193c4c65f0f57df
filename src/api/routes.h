/* The one table of what the control protocol offers. */
#pragma once

#include "api/server.h"

/* Here and in openapi.json, which a unit test holds to it. */
struct route {
	const char *method;  /* GET serves HEAD too */
	const char *pattern; /* segments in braces: "{name}", "{index}", "{id}" */
	enum access access;  /* the least that may */
	void (*handler)(struct request *rq);
	const char *params[6]; /* query parameters; ends in NULL */
	bool body;             /* takes a JSON object: request.input */
};

const struct route *routes_all(size_t *n);

/* config.c */
void handle_config(struct request *rq);
/* fleet.c */
void handle_fleet(struct request *rq);
void handle_health(struct request *rq);
void handle_shutdown(struct request *rq);
/* nodes.c */
void handle_nodes(struct request *rq);
void handle_node(struct request *rq);
/* openapi.c */
void handle_openapi(struct request *rq);
/* handlers.c */
void handle_version(struct request *rq);
void handle_clouds(struct request *rq);
void handle_cloud(struct request *rq);
void handle_start(struct request *rq);
void handle_stop(struct request *rq);
void handle_restart(struct request *rq);
void handle_touch(struct request *rq);

/* stream_events.c, stream_log.c */
void handle_events(struct request *rq);
void handle_log(struct request *rq);
/* incidents.c */
void handle_incidents(struct request *rq);
void handle_incident(struct request *rq);
void handle_incident_delete(struct request *rq);
/* create.c */
void handle_create(struct request *rq);
void handle_delete(struct request *rq);
void handle_cloud_config(struct request *rq);
void handle_cloud_configure(struct request *rq);
/* jobs.c */
void handle_jobs(struct request *rq);
void handle_job_cancel(struct request *rq);
/* reload.c */
void handle_reload(struct request *rq);
void handle_reexec(struct request *rq);

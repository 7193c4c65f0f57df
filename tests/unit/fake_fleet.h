/* A fleet without processes: fleet.h's read functions over clouds made by hand, and a record of the
 * commands that were given. */
#pragma once

#include "core/trouble.h"

#define FAKE_MAX_CLOUDS   8
#define FAKE_MAX_COMMANDS 64

struct fake_command {
	char cloud[64];
	enum fleet_command cmd;
	bool flag;
};

struct fleet {
	struct cloud *clouds[FAKE_MAX_CLOUDS];
	size_t n_clouds;
	struct fake_command commands[FAKE_MAX_COMMANDS];
	size_t n_commands;
	struct fleet_pressure pressure;
	bool pressure_known;
	struct fleet_usage usage; /* of every node that has a process */
	bool usage_known;
	struct fleet_gate gate; /* of all clouds that have one */
	bool gated;
	struct fleet_boot boot; /* of all clouds */
	bool booted;
	struct fleet_boot_cache boot_cache;
	int refusal;          /* of all that is to be made, changed or deleted: -errno */
	struct fleet_who who; /* asked for that last */
	bool lazy;            /* commands change nothing at once */
	const char *log_dir;
	struct journal *journal;     /* owned; NULL: none */
	struct incidents *incidents; /* likewise */
	char trouble[200];           /* the newest; "": none, or over */
	unsigned n_troubles;
	struct fleet_jobs jobs; /* of all clouds */
	bool jobs_known;        /* else H2O is being asked */
	char cancelled[100];    /* the last job */
	int cancel_result;
	struct conf conf;                 /* paths and [fleet] */
	const struct cloud_conf *pending; /* of all clouds */
	bool ending, unsettled;
	uint64_t overdue_ms;
	fleet_observer observer;
	void *observer_arg;
};

struct fleet *fake_fleet_new(void);
void fake_fleet_free(struct fleet *f);
/* A stopped cloud at http://127.0.0.1:54321, as soon as it is usable. */
struct cloud *fake_fleet_add(struct fleet *f, const char *name, size_t n_nodes);
/* It is removed, and gone. */
void fake_fleet_forget(struct fleet *f, struct cloud *c);
/* Changes the state and tells the observer. */
void fake_fleet_set(struct fleet *f, struct cloud *c, enum cloud_state s, const char *reason);

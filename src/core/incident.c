#include <dirent.h>
#include <inttypes.h>
#include <signal.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/machine.h"

/* The oldest go first. */
#define MAX_INCIDENTS 100

static int is_incident(const struct dirent *de)
{
	return de->d_name[0] != '.';
}

static void prune(const char *dir)
{
	struct dirent **list = NULL;
	int n = scandir(dir, &list, is_incident, alphasort);

	for (int i = 0; i < n; i++) {
		if (i < n - MAX_INCIDENTS) {
			_cleanup_free_ char *path = xasprintf("%s/%s", dir, list[i]->d_name);

			unlink(path);
		}
		free(list[i]);
	}
	free(list);
}

void incident_record(struct supervised *s, unsigned node)
{
	struct member *m = &s->members[node];
	const struct cloud *c = s->cloud;
	_cleanup_free_ char *dir = xasprintf("%s/incidents", s->fleet->conf->fleet.state_dir);
	_cleanup_free_ char *path = NULL, *snapshot = NULL, *text = NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (!m->proc)
		return;
	snapshot = process_snapshot(proc_pid(m->proc));
	proc_signal(m->proc, SIGQUIT); /* a thread dump to its log, if it still can */
	path = xasprintf("%s/%" PRIu64 "-%s-%u.txt", dir, clock_wall_ms(), c->conf->name, node);
	text = xasprintf("cloud %s, node %u, generation %" PRIu64 ": %s\nThread dump, if the JVM "
			 "could still write one: %s\n\n%s",
		c->conf->name, node, c->generation, c->reason, m->log, snapshot);
	if (file_mkdirs(dir, 0750, &e) < 0 ||
		file_write_atomic(path, text, strlen(text), 0640, false, &e) < 0) {
		log_warning("cloud %s: the incident is not kept: %s", c->conf->name, err_msg(&e));
		return;
	}
	log_notice("cloud %s: node %u: evidence is in %s, the thread dump in %s", c->conf->name,
		node, path, m->log);
	prune(dir);
}

/* What the nodes' processes take. Asked by whoever looks at the fleet, maybe very often: /proc is
 * read at most once a second for each node. */
#include "core/internal.h"

#include "base/clock.h"
#include "drv/procinfo.h"

#define FRESH_MS 1000

/* Of one core, between two moments; of a time too short for the kernel's ticks nothing. */
static double percent(uint64_t cpu_ms, uint64_t over_ms)
{
	return over_ms < 100 ? -1 : 100.0 * (double)cpu_ms / (double)over_ms;
}

static void sample(struct member *m, const struct node *n, uint64_t now)
{
	struct process_usage u;
	bool again = m->usage.pid == n->pid;
	uint64_t since = again ? m->usage.at_ms : n->launched_ms;
	uint64_t before = again ? m->usage.cpu_ms : 0;

	if (process_usage_read(n->pid, &u) < 0) {
		m->usage.pid = 0;
		return;
	}
	m->usage.last = (struct fleet_usage){
		u.rss_bytes, percent(u.cpu_ms - MIN(before, u.cpu_ms), now - MIN(since, now))};
	m->usage.pid = n->pid;
	m->usage.at_ms = now;
	m->usage.cpu_ms = u.cpu_ms;
}

bool fleet_node_usage(
	struct fleet *f, const struct cloud *c, unsigned node, struct fleet_usage *out)
{
	struct supervised *s = supervised_find(f, c->conf->name);
	uint64_t now = fleet_now(f);
	const struct node *n;
	struct member *m;

	if (!s || s->cloud != c || node >= c->n_nodes)
		return false;
	n = &c->nodes[node];
	m = &s->members[node];
	if (n->pid <= 0)
		return false;
	if (m->usage.pid != n->pid || now - m->usage.at_ms >= FRESH_MS)
		sample(m, n, now);
	*out = m->usage.last;
	return m->usage.pid == n->pid;
}

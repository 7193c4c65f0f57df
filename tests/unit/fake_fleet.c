#include "fake_fleet.h"

#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/text.h"

struct fleet *fake_fleet_new(void)
{
	return xcalloc(1, sizeof(struct fleet));
}

static void free_conf(struct cloud *c)
{
	cloud_conf_free((struct cloud_conf *)c->conf);
}

static void free_cloud(struct cloud *c)
{
	cloud_for_each_node (n, c) {
		free(n->last_exit.why);
		free(n->last_exit.log_tail);
		free(n->last_exit.incident);
	}
	free_conf(c);
	free(c->nodes);
	free(c->reason);
	free(c->h2o_name);
	free(c);
}

void fake_fleet_free(struct fleet *f)
{
	for (size_t i = 0; i < f->n_clouds; i++)
		free_cloud(f->clouds[i]);
	journal_close(f->journal);
	incidents_close(f->incidents);
	free(f);
}

struct cloud *fake_fleet_add(struct fleet *f, const char *name, size_t n_nodes)
{
	struct cloud *c = xcalloc(1, sizeof(*c));
	struct cloud_conf *conf = cloud_conf_new(name);

	conf->nodes = (int64_t)n_nodes;
	c->conf = conf;
	c->nodes = xcalloc(n_nodes, sizeof(*c->nodes));
	c->n_nodes = n_nodes;
	for (size_t i = 0; i < n_nodes; i++)
		c->nodes[i].index = (unsigned)i;
	snprintf(c->endpoint.addr, sizeof(c->endpoint.addr), "127.0.0.1");
	c->endpoint.port = 54321;
	c->since_ms = clock_monotonic_ms();
	f->clouds[f->n_clouds++] = c;
	return c;
}

void fake_fleet_set(struct fleet *f, struct cloud *c, enum cloud_state s, const char *reason)
{
	c->state = s;
	c->since_ms = clock_monotonic_ms();
	replace_str(&c->reason, reason);
	if (f->observer)
		f->observer(c, f->observer_arg);
}

uint64_t fleet_now(struct fleet *f)
{
	(void)f;
	return clock_monotonic_ms();
}

void trouble_set(struct fleet *f, enum trouble_kind kind, const char *cloud, const char *sentence)
{
	(void)kind;
	(void)cloud;
	snprintf(f->trouble, sizeof(f->trouble), "%s", sentence);
	f->n_troubles++;
}

void trouble_clear(struct fleet *f, enum trouble_kind kind, const char *cloud)
{
	(void)kind;
	(void)cloud;
	f->trouble[0] = '\0';
}

const char *trouble_advice(int r)
{
	(void)r;
	return "";
}

const struct trouble *fleet_troubles(const struct fleet *f)
{
	(void)f;
	return NULL;
}

const char *trouble_kind_name(enum trouble_kind kind)
{
	(void)kind;
	return "socket";
}

size_t fleet_n_clouds(const struct fleet *f)
{
	return f->n_clouds;
}

const struct cloud *fleet_cloud(const struct fleet *f, size_t i)
{
	return f->clouds[i];
}

static struct cloud *find(const struct fleet *f, const char *name)
{
	for (size_t i = 0; i < f->n_clouds; i++)
		if (streq(f->clouds[i]->conf->name, name))
			return f->clouds[i];
	return NULL;
}

const struct cloud *fleet_find(const struct fleet *f, const char *name)
{
	return find(f, name);
}

const char *fleet_nearest(const struct fleet *f, const char *name)
{
	const char *names[FAKE_MAX_CLOUDS];

	for (size_t i = 0; i < f->n_clouds; i++)
		names[i] = f->clouds[i]->conf->name;
	return text_nearest(name, names, f->n_clouds);
}

void fleet_command(struct fleet *f, const char *cloud, enum fleet_command cmd, bool flag)
{
	/* Of more the last is kept. */
	struct fake_command *rec = &f->commands[MIN(f->n_commands, (size_t)FAKE_MAX_COMMANDS - 1)];
	struct cloud *c = find(f, cloud);

	f->n_commands++;
	snprintf(rec->cloud, sizeof(rec->cloud), "%s", cloud);
	rec->cmd = cmd;
	rec->flag = flag;
	if (f->lazy || cmd == FLEET_TOUCH)
		return;
	c->wanted = cmd == FLEET_STOP ? WANTED_STOPPED : WANTED_RUNNING;
	if (cmd == FLEET_START && streq(cloud, "dud")) {
		fake_fleet_set(f, c, CLOUD_FAILED, "no jar found");
	} else if (cmd == FLEET_START && !cloud_usable(c)) {
		c->generation++;
		fake_fleet_set(f, c, CLOUD_STARTING, flag ? "resuming" : NULL);
	} else if (cmd != FLEET_START && c->state != CLOUD_STOPPED) {
		fake_fleet_set(f, c, CLOUD_STOPPING, NULL);
	}
}

const char *fleet_id(const struct fleet *f)
{
	(void)f;
	return "0123456789abcdef";
}

const struct conf *fleet_conf(const struct fleet *f)
{
	return &f->conf;
}

const struct cloud_conf *fleet_pending(const struct fleet *f, const char *cloud)
{
	(void)cloud;
	return f->pending;
}

bool fleet_ending(const struct fleet *f)
{
	return f->ending;
}

bool fleet_settled(const struct fleet *f, bool usable)
{
	(void)usable;
	return !f->unsettled;
}

uint64_t fleet_overdue_ms(struct fleet *f)
{
	return f->overdue_ms;
}

struct journal *fleet_journal(const struct fleet *f)
{
	return f->journal;
}

struct incidents *fleet_incidents(const struct fleet *f)
{
	return f->incidents;
}

int fleet_remove_incident(struct fleet *f, const char *id, struct err *e)
{
	return incidents_remove(f->incidents, id, e);
}

char *fleet_node_log(const struct fleet *f, const char *cloud, unsigned node)
{
	return xasprintf("%s/%s-%u.log", f->log_dir, cloud, node);
}

char *fleet_node_log_elsewhere(const struct fleet *f, const char *cloud, unsigned node)
{
	const struct cloud *c = fleet_find(f, cloud);

	if (!c || c->conf->log_to != LOG_TO_JOURNAL)
		return NULL;
	return xasprintf("its output is in the journal: journalctl -t h2o-%s-%u", cloud, node);
}

bool fleet_pressure(struct fleet *f, _unused_ const char *cloud, struct fleet_pressure *out)
{
	*out = f->pressure;
	return f->pressure_known;
}

bool fleet_node_usage(
	struct fleet *f, const struct cloud *c, unsigned node, struct fleet_usage *out)
{
	*out = f->usage;
	return f->usage_known && c->nodes[node].pid > 0;
}

bool fleet_gate(struct fleet *f, const char *cloud, struct fleet_gate *out)
{
	*out = f->gate;
	return f->gated && find(f, cloud)->conf->gate_mode != GATE_OFF;
}

bool fleet_boot(const struct fleet *f, const char *cloud _unused_, struct fleet_boot *out)
{
	*out = f->boot;
	return f->booted;
}

void fleet_boot_cache(const struct fleet *f, struct fleet_boot_cache *out)
{
	*out = f->boot_cache;
}

void fleet_observe(struct fleet *f, fleet_observer cb, void *arg)
{
	f->observer = cb;
	f->observer_arg = arg;
}

const struct cloud_conf *fleet_cloud_conf(const struct fleet *f, const char *name)
{
	const struct cloud *c = find(f, name);

	return c ? c->conf : NULL;
}

/* The file system and the other clouds are not this fleet's business: one answer for all. */
static int refuse(const struct fleet *f, struct strv *errors)
{
	if (f->refusal)
		strv_add(errors, "refused by the test");
	return f->refusal;
}

int fleet_create(struct fleet *f, struct cloud_conf *conf, const struct fleet_who *who, bool start,
	struct strv *errors)
{
	struct cloud *c;
	int r = refuse(f, errors);

	f->who = *who;
	if (r == 0 && f->n_clouds == FAKE_MAX_CLOUDS) {
		strv_add(errors, "there are many already");
		r = -EDQUOT;
	}
	if (r == 0 && find(f, conf->name)) {
		strv_add(errors, "there is one already");
		r = -EEXIST;
	}
	if (r < 0) {
		cloud_conf_free(conf);
		return r;
	}
	c = fake_fleet_add(f, conf->name, (size_t)conf->nodes);
	conf->created = true;
	free_conf(c);
	c->conf = conf;
	if (start)
		fleet_command(f, conf->name, FLEET_START, false);
	return 0;
}

int fleet_change_created(struct fleet *f, struct cloud_conf *conf, const struct fleet_who *who,
	struct cloud_change *change, struct strv *errors)
{
	struct cloud *c = find(f, conf->name);
	int r = refuse(f, errors);

	f->who = *who;
	if (r < 0) {
		cloud_conf_free(conf);
		return r;
	}
	cloud_change_make(c->conf, conf, change);
	free_conf(c);
	c->conf = conf;
	return 0;
}

int fleet_delete(
	struct fleet *f, const char *name, const struct fleet_who *who, struct strv *errors)
{
	struct cloud *c = find(f, name);
	int r = refuse(f, errors);

	f->who = *who;
	if (r == 0)
		c->removed = true;
	return r;
}

void fake_fleet_forget(struct fleet *f, struct cloud *c)
{
	size_t i = 0;

	while (f->clouds[i] != c)
		i++;
	free_cloud(c);
	f->clouds[i] = f->clouds[--f->n_clouds];
}

bool fleet_jobs(struct fleet *f, const char *cloud, uint64_t wanted_ms, struct fleet_jobs *out)
{
	(void)cloud;
	(void)wanted_ms;
	*out = f->jobs;
	return f->jobs_known;
}

int fleet_cancel_job(struct fleet *f, const char *cloud, const char *id)
{
	(void)cloud;
	snprintf(f->cancelled, sizeof(f->cancelled), "%s", id);
	return f->cancel_result;
}

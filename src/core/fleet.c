#include "core/fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/handover.h"
#include "base/log.h"
#include "base/text.h"
#include "core/bootbuilder.h"
#include "core/internal.h"

/* ---- the state directory is one daemon's ---- */

/* A daemon that was just killed may need a moment to be gone. */
static int lock_patiently(int fd)
{
	for (unsigned i = 0; i < 20; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK)
			return -errno;
		usleep(50000);
	}
	return -EBUSY;
}

static int take_lock(struct fleet *f, struct err *e)
{
	int r;

	_cleanup_free_ char *path = xasprintf("%s/lock", f->conf->fleet.state_dir);
	_cleanup_free_ char *holder = NULL, *pid = NULL;

	f->lock_fd = handover_take_fd("lock %s", f->conf->fleet.state_dir);
	if (f->lock_fd >= 0)
		return 0;
	f->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (f->lock_fd < 0)
		return err_set_errno(e, -errno, "cannot open %s", path);
	fchmod(f->lock_fd, 0600); /* who can read it can lock it, and keep us out */
	r = lock_patiently(f->lock_fd);
	if (r < 0) {
		if (r != -EBUSY)
			return err_set_errno(e, r, "cannot lock %s", path);
		if (file_read(path, 64, &holder, NULL) == 0)
			holder[strcspn(holder, "\n")] = '\0';
		return err_set(e, -EBUSY,
			"another h2ofleetd (pid %s) is running on %s; stop it first, or give this "
			"one a state_dir of its own",
			holder && *holder ? holder : "unknown", f->conf->fleet.state_dir);
	}
	pid = xasprintf("%d\n", (int)getpid());
	if (ftruncate(f->lock_fd, 0) < 0 || write(f->lock_fd, pid, strlen(pid)) < 0)
		return err_set_errno(e, -errno, "cannot write %s", path);
	return 0;
}

/* Marks the processes of this state directory over the lives of its daemons. */
static int load_id(struct fleet *f, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/fleet-id", f->conf->fleet.state_dir);
	_cleanup_free_ char *text = NULL;
	int r = file_read(path, 64, &text, NULL);
	uint64_t id;

	if (r == 0 && strlen(text) >= 16 && strspn(text, "0123456789abcdef") == 16) {
		memcpy(f->id, text, 16);
		return 0;
	}
	/* There is one, and another would make strangers of all that runs. */
	if (r < 0 && r != -ENOENT && r != -EFBIG && r != -EINVAL)
		return err_set_errno(e, r, "cannot read %s", path);
	if (state_fleet_id(f->conf->fleet.state_dir, f->id)) {
		log_warning("%s is damaged; the fleet's id is taken from a state file", path);
		return file_write_atomic(path, f->id, 16, 0640, true, e);
	}
	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		id = clock_wall_ms() ^ (uint64_t)getpid() << 48;
	snprintf(f->id, sizeof(f->id), "%016" PRIx64, id);
	return file_write_atomic(path, f->id, 16, 0640, true, e);
}

static int make_dirs(const struct fleet_conf *c, struct err *e)
{
	int r = file_own_dir(c->state_dir, 0750, e);

	if (r == 0)
		r = file_check_entries(c->state_dir, e);
	if (r < 0)
		return err_wrap(e, "state_dir");
	r = file_own_dir(c->log_dir, 0750, e);
	return r < 0 ? err_wrap(e, "log_dir") : 0;
}

/* ---- clouds ---- */

static void init_member(struct supervised *s, unsigned i)
{
	struct member *m = &s->members[i];
	const struct cloud_conf *conf = s->cloud->conf;

	m->s = s;
	m->index = i;
	m->ice_dir = conf->ice_root ? xasprintf("%s/%s/%u", conf->ice_root, conf->name, i)
				    : xasprintf("%s/%u", s->dir, i);
	m->tmp_dir = xasprintf("%s/tmp", m->ice_dir);
	m->flatfile = xasprintf("%s/flatfile-%u", s->dir, i);
	m->log = xasprintf("%s/%u.log", s->log_dir, i);
	m->log_to = conf->log_to;
}

static uint64_t seed(void)
{
	uint64_t v;

	return getrandom(&v, sizeof(v), 0) == sizeof(v) ? v : clock_wall_ms();
}

void members_make(struct supervised *s)
{
	s->members = xcalloc(s->cloud->n_nodes, sizeof(*s->members));
	s->holds = xcalloc(s->cloud->n_nodes, sizeof(*s->holds));
	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		s->holds[i] = PORT_PAIR_NULL;
		init_member(s, i);
	}
}

void members_free(struct supervised *s)
{
	flatfiles_forget(s);
	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		struct member *m = &s->members[i];

		polls_cancel(m);
		proc_free(m->proc);
		port_pair_release(&s->holds[i]);
		free(m->ice_dir);
		free(m->tmp_dir);
		free(m->flatfile);
		free(m->log);
	}
	free(s->members);
	free(s->holds);
}

struct supervised *supervised_new(struct fleet *f, const struct cloud_conf *conf)
{
	struct supervised *s = xcalloc(1, sizeof(*s));

	s->fleet = f;
	s->cloud = cloud_new(conf, seed());
	s->dir = xasprintf("%s/clouds/%s", f->conf->fleet.state_dir, conf->name);
	s->log_dir = xasprintf("%s/%s", f->conf->fleet.log_dir, conf->name);
	s->queue_end = &s->queue;
	s->door = DOOR_NULL;
	members_make(s);
	s->timer = xcalloc(1, sizeof(*s->timer));
	uv_timer_init(f->loop, s->timer);
	s->timer->data = s;
	s->cloud->since_wall_ms = clock_wall_ms();
	s->cloud->since_ms = fleet_now(f);
	logs_init(s);
	state_load(s);
	adopt_members(s);
	return s;
}

static void on_timer_closed(uv_handle_t *h)
{
	free(h);
}

void supervised_free(struct supervised *s)
{
	members_free(s);
	door_close(s);
	cgroups_forget(s);
	java_forget(s);
	work_forget(s);
	s->fleet->crowd -= s->in_crowd;
	if (s->request)
		http_cancel(s->request);
	idle_cancel(s);
	incident_forget(s);
	boot_forget(s);
	jobs_free(s);
	logs_free(s);
	while (s->queue) {
		struct queued_event *q = s->queue;

		s->queue = q->next;
		free(q->text);
		free(q->ports);
		free(q);
	}
	uv_close((uv_handle_t *)s->timer, on_timer_closed);
	runtime_clear(&s->runtime);
	cloud_conf_free(s->pending);
	free(s->dir);
	free(s->log_dir);
	free(s->recovery_dir);
	free(s->ignored_recovery);
	free(s->resumed_recovery);
	cloud_free(s->cloud);
	free(s);
}

/* From the user database, not from $USER. */
const char *fleet_user(struct fleet *f)
{
	const struct passwd *pw = f->user ? NULL : getpwuid(geteuid());

	if (pw)
		f->user = xstrdup(pw->pw_name);
	return f->user;
}

#define DISK_BEATS 10

static void on_beat(uv_timer_t *t)
{
	struct fleet *f = t->data;

	logs_check(f);
	gate_beat(f);
	boot_beat(f);
	adopt_beat(f);
	if (f->beats++ % DISK_BEATS == 0)
		disk_check(f);
}

static void open_journal(struct fleet *f)
{
	_cleanup_free_ char *dir = xasprintf("%s/events", f->conf->fleet.state_dir);

	f->journal = journal_open(dir, f->conf->fleet.events_max_size);
	emit_started(f);
}

static void open_incidents(struct fleet *f)
{
	_cleanup_free_ char *dir = xasprintf("%s/incidents", f->conf->fleet.state_dir);

	f->incidents = incidents_open(dir, INCIDENTS_MAX, INCIDENTS_MAX_BYTES);
}

int fleet_new(uv_loop_t *loop, struct conf *conf, struct fleet **out, struct err *e)
{
	struct fleet *f = xcalloc(1, sizeof(*f));
	int r;

	f->loop = loop;
	f->conf = conf;
	f->lock_fd = -1;
	fleet_user(f); /* now, while nobody waits for us */
	f->awake = awake_new(loop);
	f->beat = xcalloc(1, sizeof(*f->beat));
	uv_timer_init(loop, f->beat);
	f->beat->data = f;
	uv_timer_start(f->beat, on_beat, FLEET_BEAT_MS, FLEET_BEAT_MS);
	work_new(f);
	clean_new(f);
	oom_sample(f);
	bootbuilder_new(f);
	r = make_dirs(&conf->fleet, e);
	if (r == 0)
		r = take_lock(f, e);
	if (r == 0)
		r = load_id(f, e);
	if (r == 0)
		r = http_new(loop, &f->http, e);
	if (r < 0) {
		fleet_free(f);
		return r;
	}
	cgroups_new(f);
	open_journal(f);
	open_incidents(f);
	created_tidy(f);
	created_put_aside(f, conf);
	f->n = conf->n_clouds;
	f->clouds = xcalloc(f->n, sizeof(*f->clouds));
	for (size_t i = 0; i < f->n; i++)
		f->clouds[i] = supervised_new(f, conf->clouds[i]);
	r = gate_new(f);
	if (r < 0)
		f->cannot_adopt = r;
	if (!f->cannot_adopt)
		strays_find(f);
	if (f->cannot_adopt) { /* not now; whoever starts us tries again */
		r = err_set_errno(e, f->cannot_adopt,
			"cannot take over what an earlier daemon has left (see above)");
		fleet_free(f);
		return r;
	}
	*out = f;
	return 0;
}

void fleet_free(struct fleet *f)
{
	if (!f)
		return;
	java_free(f);
	for (size_t i = 0; i < f->n; i++)
		supervised_free(f->clouds[i]);
	strays_free(f);
	work_free(f);
	clean_free(f);
	cgroups_free(f);
	gate_free(f);
	bootbuilder_free(f);
	troubles_free(f);
	reload_free(f);
	free(f->clouds);
	if (f->http)
		http_free(f->http);
	if (f->lock_fd >= 0)
		close(f->lock_fd);
	uv_close((uv_handle_t *)f->beat, on_timer_closed);
	awake_free(f->awake);
	journal_close(f->journal);
	incidents_close(f->incidents);
	conf_free(f->conf);
	free(f->user);
	free(f);
}

/* Of what earlier daemons have left only that remains which goes on. */
static void sweep(struct fleet *f)
{
	if (f->strays)
		return; /* again, when they are gone */
	cgroups_sweep(f);
	clean_sweep(f);
}

void fleet_start(struct fleet *f)
{
	sweep(f);
	adopt_clouds(f);
}

void fleet_end_left_behind(struct fleet *f, void (*done)(void *arg), void *arg)
{
	for (size_t i = 0; i < f->n; i++) /* nothing is begun any more */
		f->clouds[i]->cloud->shutting_down = true;
	sweep(f);
	adopt_resume(f);
	doors_begin(f);
	fleet_shutdown(f, false, done, arg);
}

void fleet_strays_gone(struct fleet *f)
{
	sweep(f);
	for (size_t i = 0; i < f->n; i++)
		launch_go_on(f->clouds[i]);
	fleet_check_done(f);
}

void fleet_shutdown(struct fleet *f, bool at_once, void (*done)(void *arg), void *arg)
{
	f->ending = true;
	f->done = NULL; /* not before all have been told */
	adopt_end_session(f);
	emit_stopping(f, at_once);
	bootbuilder_end(f, at_once);
	if (at_once) {
		strays_kill(f);
		gate_end(f, true);
	}
	for (size_t i = 0; i < f->n; i++) {
		struct supervised *s = f->clouds[i];

		supervised_feed(s, &(struct cloud_event){.type = EVENT_SHUTDOWN, .flag = at_once});
		launch_cancel_probe(s);
	}
	f->done = done;
	f->done_arg = arg;
	fleet_check_done(f);
}

static int save_all(struct fleet *f, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < f->n && r == 0; i++)
		r = state_save(f->clouds[i], false, e);
	if (r == 0)
		adopt_note_session(f);
	return r;
}

void fleet_detach(struct fleet *f)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (save_all(f, &e) < 0)
		log_error("the next daemon may not know all: %s", err_msg(&e));
	fleet_event(f, "daemon-detached", NULL, -1, NULL,
		"h2ofleetd leaves its clouds running for the next one");
}

static void hand_over_ports(const struct supervised *s)
{
	const char *name = s->cloud->conf->name;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		const struct port_pair *p = &s->holds[i];

		if (!p->api)
			continue;
		port_pair_hand_over(p);
		log_debug("cloud %s: hands port %u over", name, p->api);
	}
}

int fleet_hand_over(struct fleet *f, struct err *e)
{
	int r;

	work_finish(f);
	r = save_all(f, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < f->n; i++) {
		logs_free(f->clouds[i]); /* the next image rotates from where this one was */
		f->clouds[i]->logs.pending = true;
	}
	handover_add_fd(f->lock_fd, "lock %s", f->conf->fleet.state_dir);
	for (size_t i = 0; i < f->n; i++)
		hand_over_ports(f->clouds[i]);
	return 0;
}

size_t fleet_n_clouds(const struct fleet *f)
{
	return f->n;
}

const struct cloud *fleet_cloud(const struct fleet *f, size_t i)
{
	return f->clouds[i]->cloud;
}

struct supervised *supervised_find(const struct fleet *f, const char *name)
{
	for (size_t i = 0; i < f->n; i++)
		if (streq(f->clouds[i]->cloud->conf->name, name))
			return f->clouds[i];
	return NULL;
}

const struct cloud *fleet_find(const struct fleet *f, const char *name)
{
	const struct supervised *s = supervised_find(f, name);

	return s ? s->cloud : NULL;
}

const char *fleet_nearest(const struct fleet *f, const char *name)
{
	_cleanup_free_ const char **names = xcalloc(f->n, sizeof(*names));

	for (size_t i = 0; i < f->n; i++)
		names[i] = f->clouds[i]->cloud->conf->name;
	return text_nearest(name, names, f->n);
}

void fleet_command(struct fleet *f, const char *cloud, enum fleet_command cmd, bool flag)
{
	static const enum event_type types[] = {
		[FLEET_START] = EVENT_START,
		[FLEET_STOP] = EVENT_STOP,
		[FLEET_RESTART] = EVENT_RESTART,
		[FLEET_TOUCH] = EVENT_TOUCH,
	};
	struct supervised *s = supervised_find(f, cloud);

	if (!s || (s->cloud->removed && cmd != FLEET_STOP))
		return;
	supervised_feed(s, &(struct cloud_event){.type = types[cmd], .flag = flag});
}

uint64_t fleet_changes(const struct fleet *f)
{
	return f->changes;
}

const char *fleet_id(const struct fleet *f)
{
	return f->id;
}

bool fleet_ending(const struct fleet *f)
{
	return f->ending;
}

const struct conf *fleet_conf(const struct fleet *f)
{
	return f->conf;
}

struct journal *fleet_journal(const struct fleet *f)
{
	return f->journal;
}

struct incidents *fleet_incidents(const struct fleet *f)
{
	return f->incidents;
}

char *fleet_node_log(const struct fleet *f, const char *cloud, unsigned node)
{
	const struct supervised *s = supervised_find(f, cloud);

	return s && node < s->cloud->n_nodes ? xstrdup(s->members[node].log) : NULL;
}

char *fleet_node_log_elsewhere(const struct fleet *f, const char *cloud, unsigned node)
{
	const struct supervised *s = supervised_find(f, cloud);

	return s && node < s->cloud->n_nodes ? logs_elsewhere(&s->members[node]) : NULL;
}

void fleet_observe(struct fleet *f, fleet_observer cb, void *arg)
{
	f->observer = cb;
	f->observer_arg = arg;
}

/* The gate's process, as the daemon sees it: drv/gate_link.h, whose messages are those of
 * drv/gate_wire.h. It keeps its doors over the lives of daemons, listens to the newest that has
 * connected, holds clients, knocks, and tells all it has to whoever says hello. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>

#include "drv/gate_link.h"

#define MAX_UNREAD 8

struct message {
	struct message *next;
	struct gate_message m;             /* to the daemon: with its descriptors */
	struct ofile *files[GATE_MAX_FDS]; /* to the gate */
	unsigned n_files;
};

struct queue {
	struct message *first, **end;
	unsigned n;
};

struct gate_link {
	uint64_t gate; /* vproc_id() */
	struct inode *socket;
	bool started, gone, no_room;
	struct queue in, out; /* in: to the daemon */
	gate_link_cb cb;
	gate_link_room_cb room;
	void *arg;
};

static void put(struct queue *q, struct message *m)
{
	*(q->first ? q->end : &q->first) = m;
	q->end = &m->next;
	q->n++;
}

static struct message *take(struct queue *q)
{
	struct message *m = q->first;

	if (m) {
		q->first = m->next;
		q->n--;
	}
	return m;
}

static void message_free(struct message *m)
{
	json_decref(m->m.body);
	for (unsigned i = 0; i < m->n_files; i++)
		ofile_unref(m->files[i]);
	free(m);
}

static void queue_clear(struct queue *q)
{
	struct message *m;

	while ((m = take(q)))
		message_free(m);
}

struct vproc *the_gate(void)
{
	for (struct vproc *p = w.procs; p; p = p->next)
		if (p->kind == V_GATE && p->gate && vproc_runs(p))
			return p;
	return NULL;
}

const struct vgate_door *gate_door(const char *cloud)
{
	struct vproc *p = the_gate();

	for (unsigned i = 0; p && i < MAX_DOORS; i++)
		if (p->gate->doors[i].used && streq(p->gate->doors[i].cloud, cloud))
			return &p->gate->doors[i];
	return NULL;
}

/* ---- to the daemon ---- */

static void tell_daemon(void *arg)
{
	struct gate_link *l = arg;
	struct message *m;

	while (l->cb && (m = take(&l->in))) {
		gate_link_cb cb = l->cb;

		/* The callback may close the link; what it was given stays until it returns. */
		if (!m->m.body) {
			message_free(m);
			cb(NULL, l->arg);
			return;
		}
		cb(&m->m, l->arg);
		message_free(m);
		return; /* the others in turns of their own, in order */
	}
}

static void send_up(struct gate_link *l, json_t *body, const struct vgate_door *d)
{
	struct message *m = xcalloc(1, sizeof(*m));

	m->m.body = body;
	for (unsigned i = 0; d && i < d->n_files; i++) {
		d->files[i]->refs++;
		m->files[m->n_files++] = d->files[i];
	}
	put(&l->in, m);
	if (l->started)
		notify(tell_daemon, l);
}

static void knock(struct vgate *g, struct vgate_door *d)
{
	if (!d->knock || d->knocked || !d->waiting || !g->link)
		return;
	d->knocked = true;
	w.knocks++;
	send_up(g->link, json_pack("{s:s, s:s}", "op", "knock", "cloud", d->cloud), NULL);
}

static json_t *door_json(const struct vgate_door *d)
{
	return json_pack("{s:s, s:s, s:s, s:i, s:b}", "op", "door", "cloud", d->cloud, "mode",
		d->mode, "port", (int)d->port, "foreign", 0);
}

static void on_hello(struct vproc *p)
{
	struct vgate *g = p->gate;

	send_up(g->link,
		json_pack("{s:s, s:i, s:s, s:i}", "op", "hello", "protocol", GATE_PROTOCOL,
			"version", "sim", "pid", (int)p->pid),
		NULL);
	for (unsigned i = 0; i < MAX_DOORS; i++)
		if (g->doors[i].used)
			send_up(g->link, door_json(&g->doors[i]), &g->doors[i]);
	send_up(g->link, json_pack("{s:s}", "op", "ready"), NULL);
	for (unsigned i = 0; i < MAX_DOORS; i++) {
		g->doors[i].knocked = false;
		if (g->doors[i].used)
			knock(g, &g->doors[i]);
	}
}

/* ---- from the daemon ---- */

static void forget_door(struct vgate_door *d)
{
	for (unsigned i = 0; i < d->n_files; i++)
		ofile_unref(d->files[i]);
	*d = (struct vgate_door){.used = false};
}

static struct vgate_door *door_for(struct vgate *g, const char *cloud)
{
	for (unsigned i = 0; i < MAX_DOORS; i++)
		if (g->doors[i].used && streq(g->doors[i].cloud, cloud))
			return &g->doors[i];
	return NULL;
}

static struct vgate_door *free_door(struct vgate *g)
{
	unsigned i = 0;

	while (g->doors[i].used)
		i++;
	return &g->doors[i];
}

static void on_door(struct vgate *g, struct message *m, const char *cloud)
{
	struct vgate_door *d = door_for(g, cloud);

	if (d && m->n_files)
		forget_door(d);
	if (!d || m->n_files) {
		if (!m->n_files) {
			violated("gate", "it is told of a door of %s that it does not have", cloud);
			return;
		}
		d = free_door(g);
		d->used = true;
		snprintf(d->cloud, sizeof(d->cloud), "%s", cloud);
		memcpy(d->files, m->files, sizeof(m->files));
		d->n_files = m->n_files;
		m->n_files = 0;
	}
	snprintf(d->mode, sizeof(d->mode), "%s",
		json_string_value(json_object_get(m->m.body, "mode")));
	d->port = (uint16_t)json_integer_value(json_object_get(m->m.body, "port"));
	d->knock = json_is_true(json_object_get(m->m.body, "knock"));
	d->knocked = false;
	for (unsigned i = 1; i < d->n_files; i++)
		d->files[i]->inode->door->listens = !streq(d->mode, "refuse");
	if (!streq(d->mode, "hold"))
		d->waiting = 0;
	knock(g, d);
}

static void handle(struct vproc *p, struct message *m)
{
	const char *op = json_string_value(json_object_get(m->m.body, "op"));
	const char *cloud = json_string_value(json_object_get(m->m.body, "cloud"));
	struct vgate_door *d = cloud ? door_for(p->gate, cloud) : NULL;

	if (streq_null(op, "hello"))
		on_hello(p);
	else if (streq_null(op, "ping"))
		send_up(p->gate->link, json_pack("{s:s}", "op", "pong"), NULL);
	else if (streq_null(op, "door") && cloud)
		on_door(p->gate, m, cloud);
	else if (streq_null(op, "forget") && d)
		forget_door(d);
}

static void tell_room(void *arg)
{
	struct gate_link *l = arg;

	if (l->room && !l->gone)
		l->room(l->arg);
}

/* It reads all that there is. */
static void gate_reads(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);
	struct gate_link *l;
	struct message *m;

	(void)b;
	if (!p || p->state != V_RUNNING || p->exec_at > w.now || !p->gate || !(l = p->gate->link))
		return; /* gate_begin() comes */
	if (p->gate->killed)
		return;
	if (p->gate->paused_until > w.now) {
		world_at(p->gate->paused_until, gate_reads, id, 0);
		return;
	}
	while ((m = take(&l->out))) {
		handle(p, m);
		message_free(m);
	}
	if (l->no_room)
		notify(tell_room, l);
	l->no_room = false;
}

/* ---- drv/gate_link.h ---- */

int gate_link_listen(const char *path, struct err *e)
{
	struct inode *i;
	int err = fault(FAULT_OPEN), fd;

	if (err || !effect(50))
		return err_set_errno(e, -(err ? err : EIO), "cannot make %s", path);
	disk_remove(path);
	disk_write(path, "");
	i = disk_find(path);
	i->type = I_SOCK;
	fd = fd_new(i, O_RDWR);
	return fd;
}

/* Whoever listens accepts later; only one end can be waiting to be begun. */
static struct vproc *listener_at(const struct inode *socket)
{
	for (struct vproc *p = w.procs; p; p = p->next)
		if (p->kind == V_GATE && vproc_runs(p) && p->input && p->input->inode == socket)
			return p;
	return NULL;
}

int gate_link_open(uv_loop_t *loop, const char *path, struct gate_link **out)
{
	struct inode *i = disk_find(path);
	struct vproc *p = i ? listener_at(i) : NULL;
	int err = fault(FAULT_OPEN);

	(void)loop;
	if (err)
		return -err;
	if (!effect(20) || !i)
		return -ENOENT;
	if (!p)
		return -ECONNREFUSED;
	*out = xcalloc(1, sizeof(**out));
	(*out)->gate = vproc_id(p);
	if (p->gate) {
		if (p->gate->link) { /* the newest is its daemon */
			p->gate->link->gone = true;
			send_up(p->gate->link, NULL, NULL);
		}
		p->gate->link = *out;
	} else {
		p->gate = xcalloc(1, sizeof(*p->gate));
		p->gate->link = *out;
	}
	return 0;
}

void gate_link_close(struct gate_link *l)
{
	struct vproc *p;

	if (!l)
		return;
	unnotify(l);
	p = w.ghost ? NULL : vproc_by_id(l->gate);
	if (p && p->gate && p->gate->link == l)
		p->gate->link = NULL;
	queue_clear(&l->in);
	queue_clear(&l->out);
	free(l);
}

int gate_link_wait(struct gate_link *l, unsigned timeout_ms, struct gate_message *out)
{
	uint64_t until = w.now + timeout_ms * MS;
	struct message *m;

	while (!l->in.first && w.now < until && !w.ghost)
		look(1000);
	m = take(&l->in);
	if (!m)
		return -ETIMEDOUT;
	*out = (struct gate_message){.body = TAKE_PTR(m->m.body)};
	for (unsigned i = 0; i < m->n_files && out->body; i++)
		out->fds[out->n_fds++] = fd_of(m->files[i]);
	m->n_files = out->body ? 0 : m->n_files;
	message_free(m);
	return out->body ? 1 : 0;
}

void gate_link_start(struct gate_link *l, gate_link_cb cb, gate_link_room_cb room, void *arg)
{
	l->cb = cb;
	l->room = room;
	l->arg = arg;
	l->started = true;
	for (unsigned i = 0; i < l->in.n; i++)
		notify(tell_daemon, l);
}

int gate_link_send(struct gate_link *l, const json_t *body, const int *fd, unsigned n_fds)
{
	struct vproc *p = vproc_by_id(l->gate);
	struct message *m;

	if (l->gone || !p || !vproc_runs(p))
		return -EPIPE;
	if (l->out.n >= MAX_UNREAD) {
		l->no_room = true;
		return -EAGAIN;
	}
	if (!effect(10))
		return -EPIPE;
	if (!vproc_runs(p))
		return -EPIPE;
	m = xcalloc(1, sizeof(*m));
	m->m.body = json_deep_copy(body);
	for (unsigned i = 0; i < n_fds; i++) {
		struct ofile *f = fd_file(fd[i]);

		if (!f)
			continue;
		f->refs++;
		m->files[m->n_files++] = f;
	}
	put(&l->out, m);
	if (p->state == V_RUNNING)
		world_at(w.now + 200, gate_reads, l->gate, 0);
	return 0;
}

/* ---- its life ---- */

void gate_begin(struct vproc *p)
{
	if (!p->gate)
		p->gate = xcalloc(1, sizeof(*p->gate));
	world_at(w.now + 2 * MS, gate_reads, vproc_id(p), 0);
}

void gate_gone(struct vproc *p)
{
	struct gate_link *l = p->gate->link;

	for (unsigned i = 0; i < MAX_DOORS; i++)
		if (p->gate->doors[i].used)
			forget_door(&p->gate->doors[i]);
	p->gate->link = NULL;
	if (!l)
		return;
	l->gone = true;
	send_up(l, NULL, NULL);
}

void gate_daemon_gone(void)
{
	for (struct vproc *p = w.procs; p; p = p->next)
		if (p->gate)
			p->gate->link = NULL;
}

bool gate_has_read_all(void)
{
	const struct vproc *p = the_gate();

	return p && p->gate->link && p->gate->link->started && !p->gate->link->out.n &&
	       !p->gate->link->gone && !p->gate->killed && p->state == V_RUNNING &&
	       p->exec_at <= w.now;
}

void gate_pause(uint64_t until)
{
	struct vproc *p = the_gate();

	if (!p)
		return;
	p->gate->paused_until = until;
	world_at(until, gate_reads, vproc_id(p), 0);
}

void gate_client(const char *cloud)
{
	struct vproc *p = the_gate();
	struct vgate_door *d = p ? door_for(p->gate, cloud) : NULL;
	struct vproc *server;

	if (!d || p->gate->paused_until > w.now || d->n_files < 2 ||
		!d->files[1]->inode->door->listens)
		return;
	if (streq(d->mode, "hold")) {
		d->waiting++;
		d->files[0]->inode->counters->traffic_ms = monotonic_ms();
		knock(p->gate, d);
	} else if (streq(d->mode, "open")) {
		server = vport(d->port)->listener;
		check_passed(cloud, server);
		d->files[0]->inode->counters->traffic_ms = monotonic_ms();
		check_used(cloud);
		if (server && server->kind == V_NODE)
			h2o_lock(server);
		w.passed++;
	}
}

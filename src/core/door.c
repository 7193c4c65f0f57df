/* The door of a cloud: the endpoint's listening sockets, and what the gate is told about them. They
 * are bound here and given to the gate; both keep them, so neither's death loses the port. */
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/activation.h"
#include "drv/gate_wire.h"

/* Each that waits takes a descriptor of the gate, and what it has sent some memory of the kernel.
 */
#define MAX_HELD 1024

#define RETRY_MS 1000

/* Users below belong to the system (systemd's SYSTEM_UID_MAX + 1): their group is made for the
 * service, while that of a person may be everybody's. */
#define FIRST_PERSON 1000

/* ---- the port ---- */

static int make_counters(struct door *d, struct err *e)
{
	if (d->counters)
		return 0;
	if (d->counters_fd < 0)
		d->counters_fd = memfd_create("h2ofleet-door", MFD_CLOEXEC);
	if (d->counters_fd >= 0)
		d->counters = gate_counters_map(d->counters_fd);
	return d->counters ? 0 : err_set_errno(e, -errno, "cannot make the gate's counters");
}

void door_close(struct supervised *s)
{
	door_port_release(&s->door.port);
	gate_counters_unmap(s->door.counters);
	closep(&s->door.counters_fd);
	s->door = DOOR_NULL;
}

/* At once, however busy the gate is, which closes its own only when it reads of it. */
static void stop_listening(const int *fds, size_t n)
{
	while (n--)
		if (fds[n] >= 0)
			shutdown(fds[n], SHUT_RD);
}

void door_release(struct supervised *s)
{
	struct door *d = &s->door;

	if (!d->foreign)
		stop_listening(d->port.fds, ARRAY_SIZE(d->port.fds));
	if (d->known)
		gate_forget(s->fleet, s->cloud->conf->name);
	door_close(s);
	trouble_clear(s->fleet, TROUBLE_GATE, s->cloud->conf->name);
}

/* Where systemd listens on that port, its sockets are the door's. */
static bool take_systemds(struct door *d, uint16_t port)
{
	struct door_port *p = &d->port;

	p->fds[0] = activation_listener(port, false);
	p->fds[1] = activation_listener(port, true);
	d->foreign = p->fds[0] >= 0 || p->fds[1] >= 0;
	p->port = d->foreign ? port : 0;
	return d->foreign;
}

int door_bind(struct supervised *s, uint16_t port, struct err *e)
{
	struct door *d = &s->door;
	int r = make_counters(d, e);

	if (r < 0)
		return r;
	if (!take_systemds(d, port))
		r = door_port_bind(!s->cloud->conf->bind_to_localhost, port, &d->port);
	if (r == 0) {
		d->stale = true;
		trouble_clear(s->fleet, TROUBLE_GATE, s->cloud->conf->name);
	}
	if (r < 0 && r != -EADDRINUSE)
		err_set_errno(e, r, "cannot bind port %u", port);
	return r;
}

static bool door_fits(const struct supervised *s, uint16_t first, bool exact)
{
	uint16_t port = s->door.port.port;

	return port && (exact ? port == first : port >= first);
}

/* What another cloud insists on is left to it, also while it does not run. */
static int try_port(struct supervised *s, uint16_t port, bool exact, struct err *e)
{
	const struct fleet *f = s->fleet;

	if (port_is_claimed(port))
		return -EADDRINUSE;
	for (size_t i = 0; i < f->n && !exact; i++) {
		const struct cloud *c = f->clouds[i]->cloud;

		if (f->clouds[i] != s && !c->removed && cloud_conf_insists_on(c->conf, port))
			return -EADDRINUSE;
	}
	return door_bind(s, port, e);
}

int door_hold(struct supervised *s, uint16_t first, bool exact, struct err *e)
{
	unsigned port = first;
	int r;

	if (door_fits(s, first, exact))
		return 0;
	if (s->door.port.port)
		door_release(s);
	while (port < UINT16_MAX && (r = try_port(s, (uint16_t)port, exact, e)) != 0) {
		if (r != -EADDRINUSE)
			return r;
		if (exact) {
			_cleanup_free_ char *who = port_holder_sentence(first);

			return err_set(e, r,
				"%s; free it, or let the cloud move on with port = %u+", who,
				first);
		}
		port++;
	}
	return port < UINT16_MAX ? 0 : err_set(e, -EADDRNOTAVAIL, "no free port from %u up", first);
}

/* ---- what the gate is told ---- */

static void add_name(json_t *names, const char *fmt, ...) _printf_(2, 3);

static void add_name(json_t *names, const char *fmt, ...)
{
	_cleanup_free_ char *name = NULL;
	va_list ap;

	va_start(ap, fmt);
	name = xvasprintf(fmt, ap);
	va_end(ap);
	json_array_append_new(names, json_string(name));
}

/* Whoever may steer the daemon over its control socket may use its clouds. */
static void allow_ourselves(const struct supervised *s, json_t *uids, json_t *names)
{
	struct stat st;

	json_array_append_new(uids, json_integer(geteuid()));
	if (geteuid() < FIRST_PERSON && lstat(s->fleet->conf->fleet.socket, &st) == 0 &&
		st.st_mode & S_IWGRP)
		add_name(names, "group:%u", (unsigned)st.st_gid);
}

static void add_allowed(const struct supervised *s, json_t *j)
{
	const struct cloud_conf *conf = s->cloud->conf;
	json_t *uids = json_array(), *names = json_array();
	bool anyone = !conf->gate_allow.n && !conf->bind_to_localhost;

	if (!conf->gate_allow.n && !anyone)
		allow_ourselves(s, uids, names);
	for (size_t i = 0; i < conf->gate_allow.n; i++) {
		const char *w = conf->gate_allow.v[i];

		if (streq(w, "anyone"))
			anyone = true;
		else if (streq(w, "user"))
			allow_ourselves(s, uids, names);
		else if (strchr(w, ':'))
			add_name(names, "%s", w);
		else
			json_array_append_new(
				uids, json_integer((json_int_t)strtoull(w, NULL, 10)));
	}
	json_object_set_new(j, "anyone", json_boolean(anyone));
	json_object_set_new(j, "uids", uids);
	json_object_set_new(j, "names", names);
}

static struct door_told what_to_tell(const struct supervised *s)
{
	const struct cloud *c = s->cloud;
	enum cloud_door door = cloud_door(c);

	return (struct door_told){
		.mode = door == DOOR_OPEN                                      ? "open"
			: door == DOOR_HOLD && c->conf->gate_mode == GATE_HOLD ? "hold"
									       : "refuse",
		.port = door == DOOR_OPEN ? c->nodes[0].api_port : 0,
		.knock = cloud_armed(c) && c->state == CLOUD_STOPPED,
	};
}

static json_t *door_message(const struct supervised *s, const struct door_told *t)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:b, s:b}", "op", "door",
		"cloud", s->cloud->conf->name, "mode", t->mode, "address", MEMBER_ADDR, "port",
		(int)t->port, "hold_ms", (json_int_t)s->cloud->conf->gate_hold_ms, "max_held",
		MAX_HELD, "knock", (int)t->knock, "foreign", (int)s->door.foreign);

	add_allowed(s, j);
	return j;
}

/* Here, since whoever hears of a ready cloud may connect before the gate has heard of it; he waits
 * in the queue then. */
static void listen_now(struct door *d)
{
	int one = 1;

	for (size_t i = 0; i < ARRAY_SIZE(d->port.fds); i++) {
		if (d->port.fds[i] < 0 || d->foreign)
			continue;
		/* The gate takes it away while nobody listens. */
		setsockopt(d->port.fds[i], SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (listen(d->port.fds[i], SOMAXCONN) < 0)
			log_warning("cannot listen on port %u: %s", d->port.port, strerror(errno));
	}
}

static void tell(struct supervised *s)
{
	struct door *d = &s->door;
	struct door_told t = what_to_tell(s);
	json_auto_t *j = NULL;
	int fds[GATE_MAX_FDS] = {d->counters_fd}, r;
	unsigned n = 1;

	if (d->known && !d->stale && streq(t.mode, d->told.mode) && t.port == d->told.port &&
		t.knock == d->told.knock)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(d->port.fds); i++)
		if (d->port.fds[i] >= 0)
			fds[n++] = d->port.fds[i];
	if (!streq(t.mode, "refuse"))
		listen_now(d);
	j = door_message(s, &t);
	r = gate_tell(s->fleet, j, fds, d->known ? 0 : n);
	if (r == -EMSGSIZE)
		trouble_set(s->fleet, TROUBLE_GATE, s->cloud->conf->name,
			"the gate cannot be told who may come in: gate_allow is too long; name a "
			"group");
	if (r < 0)
		return; /* it is told when it can be: gate.c calls door_look() */
	d->known = true;
	d->stale = false;
	d->told = t;
}

/* ---- the door as it should be ---- */

/* While Java is still asked for its version: clouds get their ports in the order in which they were
 * started, and clients wait from the beginning. What is wrong launch.c finds, and says. */
static void bind_early(struct supervised *s, uint16_t first, bool exact)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (s->pending || s->cloud->state != CLOUD_STARTING)
		return;
	if (exact)
		try_port(s, first, true, &e);
	else
		door_hold(s, first, false, &e);
}

static int bind_as_needed(struct supervised *s, struct err *e)
{
	const struct cloud *c = s->cloud;
	const struct cloud_conf *conf = c->conf;
	uint16_t first = cloud_conf_first_port(conf);
	int r;

	if (c->ports_planned) { /* these cannot change while members use theirs */
		r = door_bind(s, c->endpoint.port, e);
		if (r == -EADDRINUSE) {
			_cleanup_free_ char *who = port_holder_sentence(c->endpoint.port);

			err_set(e, r, "%s; the cloud keeps its endpoint and waits for it", who);
		}
		return r;
	}
	if (cloud_armed(c) || cloud_door(c) == DOOR_SHUT)
		return door_hold(s, first, conf->port.exact, e);
	bind_early(s, first, conf->port.exact);
	return 0;
}

/* Where systemd listens somebody must turn those away who come to a cloud at rest. */
static bool stays_foreign(const struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;
	uint16_t first = cloud_conf_first_port(conf);

	if (s->fleet->ending || s->cloud->removed || conf->gate_mode == GATE_OFF)
		return false;
	return s->door.port.port ? s->door.foreign
				 : !s->cloud->ports_planned && activation_listens(first);
}

void door_look(struct supervised *s)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct door *d = &s->door;
	const struct cloud *c = s->cloud;
	enum cloud_door door = cloud_door(c);

	if (door == DOOR_SHUT && !s->fleet->doors_begun)
		return; /* it may be about to start: nobody is turned away yet */
	if (door == DOOR_SHUT && !stays_foreign(s)) {
		if (d->port.port || d->counters)
			door_release(s);
		return;
	}
	if (!d->port.port && clock_monotonic_ms() >= d->retry_ms) {
		if (bind_as_needed(s, &e) < 0) {
			d->retry_ms = clock_monotonic_ms() + RETRY_MS;
			trouble_set(s->fleet, TROUBLE_GATE, c->conf->name, err_msg(&e));
		}
	}
	if (d->port.port)
		tell(s);
}

void doors_look(struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		door_look(f->clouds[i]);
}

void doors_begin(struct fleet *f)
{
	f->doors_begun = true;
	doors_look(f);
}

void doors_unknown(struct fleet *f)
{
	for (size_t i = 0; i < f->n; i++)
		f->clouds[i]->door.known = false;
}

/* ---- from an earlier daemon ---- */

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 a = {.sin6_family = 0}; /* the port is at the same place for IPv4 */
	socklen_t len = sizeof(a);

	return getsockname(fd, (struct sockaddr *)&a, &len) == 0 ? ntohs(a.sin6_port) : 0;
}

static bool is_ipv6(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_INET6;
}

static bool is_everywhere(int fd)
{
	union {
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} a = {.in = {.sin_family = 0}};
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return false;
	return a.in.sin_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a.in6.sin6_addr)
					   : a.in.sin_addr.s_addr == htonl(INADDR_ANY);
}

/* Whether the door with this socket is one that the cloud may go on with. */
static bool may_keep(const struct supervised *s, int fd, bool foreign)
{
	const struct cloud *c = s->cloud;
	const struct cloud_conf *conf = c->conf;
	uint16_t port = port_of(fd);

	if (conf->gate_mode == GATE_OFF || !port)
		return false;
	if (!foreign && is_everywhere(fd) == conf->bind_to_localhost)
		return false;
	if (c->ports_planned)
		return port == c->endpoint.port;
	return conf->port.exact ? port == conf->port.port : port >= cloud_conf_first_port(conf);
}

static bool take_over(struct supervised *s, struct gate_message *m, bool foreign)
{
	struct door *d = &s->door;

	if (d->port.port || m->n_fds < 2 || !may_keep(s, m->fds[1], foreign))
		return false;
	d->counters = gate_counters_map(m->fds[0]);
	if (!d->counters)
		return false;
	d->counters_fd = TAKE_FD(m->fds[0]);
	d->port.port = port_of(m->fds[1]);
	while (m->n_fds > 1) {
		int *theirs = &m->fds[--m->n_fds], *fd = &d->port.fds[is_ipv6(*theirs)];

		closep(fd); /* never two of a kind */
		*fd = TAKE_FD(*theirs);
	}
	m->n_fds = 0;
	d->foreign = foreign;
	d->adopted = d->known = d->stale = true;
	if (!foreign && door_port_claim(&d->port) < 0)
		log_warning("cloud %s: cannot claim port %u", s->cloud->conf->name, d->port.port);
	return true;
}

bool door_adopt(struct fleet *f, struct gate_message *m)
{
	const char *name = json_string_value(json_object_get(m->body, "cloud"));
	bool foreign = json_is_true(json_object_get(m->body, "foreign"));
	struct supervised *s = name ? supervised_find(f, name) : NULL;

	if (s && take_over(s, m, foreign))
		return true;
	if (!foreign && m->n_fds)
		stop_listening(m->fds + 1, m->n_fds - 1);
	return false;
}

/* ---- what is seen of it ---- */

uint64_t gate_traffic_ms(const struct supervised *s)
{
	uint64_t now = clock_monotonic_ms(), awake = fleet_now(s->fleet);
	uint64_t at = s->door.counters ? atomic_load(&s->door.counters->traffic_ms) : 0;
	uint64_t age = now - MIN(at, now);

	if (!at)
		return 0;
	return age < awake ? awake - age : 1;
}

bool fleet_gate(struct fleet *f, const char *cloud, struct fleet_gate *out)
{
	const struct supervised *s = supervised_find(f, cloud);
	const struct gate_counters *k = s ? s->door.counters : NULL;

	if (!s || s->cloud->conf->gate_mode == GATE_OFF)
		return false;
	*out = (struct fleet_gate){
		.door = s->door.port.port ? cloud_door(s->cloud) : DOOR_SHUT,
		.mode = s->cloud->conf->gate_mode,
		.port = s->door.port.port,
	};
	if (!k)
		return true;
	out->connections = atomic_load(&k->connections);
	out->held = atomic_load(&k->held);
	out->accepted_total = atomic_load(&k->accepted_total);
	out->passed_total = atomic_load(&k->passed_total);
	out->held_total = atomic_load(&k->held_total);
	out->expired_total = atomic_load(&k->expired_total);
	out->refused_total = atomic_load(&k->refused_total);
	out->failed_total = atomic_load(&k->failed_total);
	out->closed_total = atomic_load(&k->closed_total);
	out->bytes_in = atomic_load(&k->bytes_in);
	out->bytes_out = atomic_load(&k->bytes_out);
	out->traffic_ms = gate_traffic_ms(s);
	return true;
}

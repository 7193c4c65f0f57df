#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "gate/gate.h"

/* In one turn of the loop. */
#define ACCEPT_BUDGET  64
#define RELEASE_BUDGET 64

struct door *door_find(struct gate *g, const char *cloud)
{
	for (struct list *l = g->doors.next; l != &g->doors; l = l->next) {
		struct door *d = container_of(l, struct door, link);

		if (streq(d->conf.cloud, cloud))
			return d;
	}
	return NULL;
}

void door_traffic(struct door *d)
{
	atomic_store_explicit(&d->counters->traffic_ms, d->gate->loop.now, memory_order_relaxed);
}

/* --- listeners ------------------------------------------------------------------------------ */

/* EMFILE and the like: those who come wait in the kernel's queue, and we try again a little later.
 * With an edge-triggered loop nothing spins meanwhile. */
static void accept_later(struct listener *li)
{
	struct loop *l = &li->door->gate->loop;

	timer_set(l, &li->again, l->now + GATE_RETRY_MS);
}

/* systemd makes its sockets blocking whenever it passes them to a service, and what blocks one
 * descriptor of a socket blocks all. Nobody else accepts from it. */
static bool would_block(const struct listener *li)
{
	struct pollfd p = {.fd = li->w.fd, .events = POLLIN};

	return li->door->conf.foreign && poll(&p, 1, 0) == 0;
}

static void on_listener(struct watch *w, _unused_ uint32_t events)
{
	struct listener *li = container_of(w, struct listener, w);
	struct door *d = li->door;

	for (int i = 0; i < ACCEPT_BUDGET; i++) {
		int fd = -1;

		if (would_block(li))
			return;
		fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			conn_new(d, fd);
			continue;
		}
		switch (errno) {
		case EAGAIN:
			return;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			accept_later(li);
			return;
		case EBADF:
		case EINVAL: /* it does not listen */
		case ENOTSOCK:
		case EOPNOTSUPP:
			return;
		default: /* of that connection, gone again */
			break;
		}
	}
	loop_again(&d->gate->loop, w);
}

/* Without SO_REUSEADDR the connections that came in by it would keep it from listening again; with
 * it, and not listening, whoever sets it too could listen in our place. */
static void set_reuse(const struct listener *li, int reuse)
{
	if (!li->door->conf.foreign)
		setsockopt(li->w.fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof(reuse));
}

static void listen_on(struct listener *li)
{
	struct loop *l = &li->door->gate->loop;
	int rc;

	set_reuse(li, true);
	rc = !li->door->conf.foreign && listen(li->w.fd, SOMAXCONN) < 0 ? -errno : 0;
	if (rc == 0)
		rc = loop_watch(l, &li->w, li->w.fd, EPOLLIN);
	if (rc == 0) {
		li->listens = true;
		return;
	}
	if (!timer_is_set(&li->again))
		log_warning("cloud %s: the endpoint cannot listen yet: %s", li->door->conf.cloud,
			strerror(-rc));
	accept_later(li);
}

static bool is_listening(int fd)
{
	int on = 0;
	socklen_t len = sizeof(on);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) == 0 && on;
}

/* shutdown(2) takes a listening socket back to bound only, for all who hold it; those in its queue
 * get RST. The port stays taken because it was bound to by number. Of one
 * that does not listen it would be remembered: whatever it accepts later looks as if it had ended.
 */
static void listen_off(struct listener *li)
{
	loop_unwatch(&li->door->gate->loop, &li->w);
	timer_stop(&li->again);
	if (!li->door->conf.foreign && is_listening(li->w.fd))
		shutdown(li->w.fd, SHUT_RD);
	set_reuse(li, false);
	li->listens = false;
}

static void on_listener_again(struct timer *t)
{
	struct listener *li = container_of(t, struct listener, again);

	if (!li->listens)
		listen_on(li);
	else
		on_listener(&li->w, 0);
}

static void set_listening(struct door *d, bool on)
{
	for (unsigned i = 0; i < d->n_listeners; i++) {
		struct listener *li = &d->listeners[i];

		if (on && !li->listens)
			listen_on(li);
		else if (!on) /* even if it is not us who made it listen */
			listen_off(li);
	}
}

static bool is_listener(int fd)
{
	int type = 0, protocol = 0;
	socklen_t len = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
	       protocol == IPPROTO_TCP;
}

/* Can only processes of this machine come in here? */
static bool is_loopback(int fd)
{
	struct sockaddr_storage a = {0};
	socklen_t len = sizeof(a);

	if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return false;
	if (a.ss_family == AF_INET6)
		return IN6_IS_ADDR_LOOPBACK(&((struct sockaddr_in6 *)&a)->sin6_addr);
	return a.ss_family == AF_INET &&
	       ntohl(((struct sockaddr_in *)&a)->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

/* --- those who wait ------------------------------------------------------------------------- */

static void set_expiry(struct door *d)
{
	struct conn *first = list_first(&d->conns[CONN_HELD], struct conn, link);

	if (first)
		timer_set(&d->gate->loop, &d->expiry, first->since + d->conf.hold_ms);
	else
		timer_stop(&d->expiry);
}

static void on_expiry(struct timer *t)
{
	struct door *d = container_of(t, struct door, expiry);
	struct conn *c;

	while ((c = list_first(&d->conns[CONN_HELD], struct conn, link)) &&
		c->since + d->conf.hold_ms <= d->gate->loop.now)
		conn_expire(c);
	set_expiry(d);
}

bool door_has_room(const struct door *d)
{
	uint64_t waiting = d->counters->held;

	for (struct list *l = d->conns[CONN_CHECKING].next; l != &d->conns[CONN_CHECKING];
		l = l->next)
		waiting++;
	return waiting < d->conf.max_held;
}

void door_held(struct door *d)
{
	if (!timer_is_set(&d->expiry))
		set_expiry(d);
	if (d->conf.knock && !d->knocked)
		d->knocked = control_knock(d);
}

/* Those that were held pass, a few in each turn. */
static void on_release(struct watch *w, _unused_ uint32_t events)
{
	struct door *d = container_of(w, struct door, release);
	struct conn *c;

	if (d->conf.mode != MODE_OPEN)
		return;
	for (int i = 0; (c = list_first(&d->conns[CONN_HELD], struct conn, link)); i++) {
		if (i == RELEASE_BUDGET) {
			loop_again(&d->gate->loop, w);
			return;
		}
		conn_connect(c);
	}
	timer_stop(&d->expiry);
}

void door_answer(struct door *d, uid_t uid, bool allowed, const char *why)
{
	struct list *next;

	for (struct list *l = d->conns[CONN_CHECKING].next; l != &d->conns[CONN_CHECKING];
		l = next) {
		struct conn *c = container_of(l, struct conn, link);

		next = l->next;
		if (c->uid != uid)
			continue;
		if (allowed)
			conn_admit(c);
		else
			conn_refuse(c, why);
	}
}

/* --- how it is ------------------------------------------------------------------------------ */

static void reset_all(struct door *d, enum conn_state state)
{
	struct conn *c;

	while ((c = list_first(&d->conns[state], struct conn, link)))
		conn_reset(c);
}

static void judge_held(struct door *d)
{
	struct list *next;

	for (struct list *l = d->conns[CONN_HELD].next; l != &d->conns[CONN_HELD]; l = next) {
		next = l->next;
		conn_judge_again(container_of(l, struct conn, link));
	}
}

/* They have not passed a byte, so they can wait as well. */
static void hold_connecting(struct door *d)
{
	struct conn *c;

	while ((c = list_first(&d->conns[CONN_CONNECTING], struct conn, link)))
		conn_hold(c);
}

static void cut(struct door *d)
{
	door_count(d, closed_total, atomic_load(&d->counters->connections));
	reset_all(d, CONN_PASSING);
	if (d->conf.mode == MODE_HOLD) {
		hold_connecting(d);
		return;
	}
	door_count(d, refused_total, atomic_load(&d->counters->held));
	reset_all(d, CONN_CONNECTING);
	reset_all(d, CONN_HELD);
	reset_all(d, CONN_CHECKING);
}

static void apply(struct door *d)
{
	set_listening(d, d->conf.mode != MODE_REFUSE || d->conf.foreign);
	if (d->conf.mode == MODE_OPEN) {
		on_release(&d->release, 0);
		return;
	}
	cut(d);
	set_expiry(d);
	d->knocked = false;
	if (!list_empty(&d->conns[CONN_HELD]))
		door_held(d);
}

static bool same_admission(const struct door_conf *a, const struct door_conf *b)
{
	return a->anyone == b->anyone && strv_equal(&a->names, &b->names) &&
	       a->n_uids == b->n_uids &&
	       (a->n_uids == 0 || memcmp(a->uids, b->uids, a->n_uids * sizeof(uid_t)) == 0);
}

void door_change(struct door *d, struct door_conf *conf)
{
	bool same = same_admission(&d->conf, conf);

	door_conf_clear(&d->conf);
	d->conf = *conf;
	*conf = DOOR_CONF_NULL;
	if (!same) {
		/* They come again, and are judged by the new rules. */
		groups_forget(d);
		reset_all(d, CONN_CHECKING);
		judge_held(d);
	}
	apply(d);
}

static void door_init(struct door *d, struct gate *g)
{
	d->gate = g;
	d->counters_fd = -1;
	list_init(&d->link);
	list_init(&d->reports);
	for (size_t i = 0; i < ARRAY_SIZE(d->conns); i++)
		list_init(&d->conns[i]);
	timer_init(&d->expiry, on_expiry);
	watch_init(&d->release, on_release);
}

struct door *door_new(struct gate *g, struct door_conf *conf, const int *fds, unsigned n_fds)
{
	struct gate_counters *counters;
	struct door *d;

	if (n_fds < 2 || n_fds > 1 + GATE_LISTENERS)
		return NULL;
	for (unsigned i = 1; i < n_fds; i++)
		if (!is_listener(fds[i]))
			return NULL;
	counters = gate_counters_map(fds[0]);
	if (!counters)
		return NULL;
	d = xcalloc(1, sizeof(*d));
	door_init(d, g);
	d->conf = *conf;
	*conf = DOOR_CONF_NULL;
	d->counters = counters;
	d->counters_fd = fds[0];
	/* After another gate's death: these are its own. */
	atomic_store(&counters->connections, 0);
	atomic_store(&counters->held, 0);
	for (unsigned i = 1; i < n_fds; i++) {
		struct listener *li = &d->listeners[d->n_listeners++];

		watch_init(&li->w, on_listener);
		timer_init(&li->again, on_listener_again);
		li->door = d;
		li->w.fd = fds[i];
		fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK);
		conn_tune(fds[i], is_loopback(fds[i]));
	}
	list_add(&g->doors, &d->link);
	apply(d);
	return d;
}

void door_forget(struct door *d)
{
	set_listening(d, false);
	door_free(d);
}

void door_free(struct door *d)
{
	groups_forget(d);
	for (size_t i = 0; i < ARRAY_SIZE(d->conns); i++)
		reset_all(d, (enum conn_state)i);
	for (unsigned i = 0; i < d->n_listeners; i++) {
		loop_unwatch(&d->gate->loop, &d->listeners[i].w);
		timer_stop(&d->listeners[i].again);
		close(d->listeners[i].w.fd);
	}
	loop_unwatch(&d->gate->loop, &d->release);
	timer_stop(&d->expiry);
	reports_free(d);
	gate_counters_unmap(d->counters);
	close(d->counters_fd);
	door_conf_clear(&d->conf);
	list_del(&d->link);
	free(d);
}

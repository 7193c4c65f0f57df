/* The daemon's side of the gate. The newest connection is the daemon; when it ends, all goes on as
 * it was told last. */
#include "config.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/log.h"
#include "gate/gate.h"

#define MESSAGE_BUDGET 64

static void alone_again(struct gate *g)
{
	if (g->daemon.fd < 0 && list_empty(&g->doors))
		timer_set(&g->loop, &g->alone, g->loop.now + GATE_ALONE_MS);
	else
		timer_stop(&g->alone);
}

/* Nothing would ever end us: no daemon knows of us, and nobody can connect. */
static void on_alone(struct timer *t)
{
	struct gate *g = container_of(t, struct gate, alone);

	log_info("no daemon and no door: the gate ends");
	g->loop.end = true;
}

void control_doors_changed(struct gate *g)
{
	alone_again(g);
}

static void drop_daemon(struct gate *g)
{
	int fd = g->daemon.fd;

	loop_unwatch(&g->loop, &g->daemon);
	g->daemon.fd = -1;
	closep(&fd);
	g->telling = NULL;
	g->told_hello = false;
	alone_again(g);
}

/* --- telling -------------------------------------------------------------------------------- */

/* EPOLLHUP drops it: who called may be in the midst of its messages. */
static void hang_up(struct gate *g)
{
	shutdown(g->daemon.fd, SHUT_RDWR);
}

/* 1 told; 0 not now; -1 the daemon is gone. */
static int send_now(struct gate *g, const json_t *body, const int *fds, unsigned n_fds)
{
	int rc;

	if (g->daemon.fd < 0)
		return -1;
	rc = gate_send(g->daemon.fd, body, fds, n_fds);
	if (rc == 0)
		return 1;
	if (rc == -EAGAIN)
		return 0;
	hang_up(g);
	return -1;
}

/* Before it has been told of the doors a daemon could not make anything of it. */
bool control_tell(struct gate *g, const json_t *body)
{
	return g->told_hello && !g->telling && send_now(g, body, NULL, 0) > 0;
}

bool control_knock(struct door *d)
{
	json_t *body = json_pack("{s:s, s:s}", "op", "knock", "cloud", d->conf.cloud);
	bool told = control_tell(d->gate, body);

	json_decref(body);
	return told;
}

static int tell_hello(struct gate *g)
{
	json_t *body = json_pack("{s:s, s:i, s:s, s:i}", "op", "hello", "protocol", GATE_PROTOCOL,
		"version", PACKAGE_VERSION, "pid", (int)getpid());
	int rc = send_now(g, body, NULL, 0);

	json_decref(body);
	return rc;
}

static int tell_door(struct gate *g, const struct door *d)
{
	int fds[GATE_MAX_FDS] = {d->counters_fd};

	for (unsigned i = d->n_listeners; i; i--)
		fds[i] = d->listeners[i - 1].w.fd;
	return send_now(g, d->conf.body, fds, 1 + d->n_listeners);
}

/* "ready", "pong" */
static int tell_word(struct gate *g, const char *op)
{
	json_t *body = json_pack("{s:s}", "op", op);
	int rc = send_now(g, body, NULL, 0);

	json_decref(body);
	return rc;
}

static void each_door(struct gate *g, void (*fn)(struct door *d))
{
	for (struct list *l = g->doors.next; l != &g->doors; l = l->next)
		fn(container_of(l, struct door, link));
}

static void knock(struct door *d)
{
	if (d->conf.mode == MODE_HOLD && !list_empty(&d->conns[CONN_HELD]))
		door_held(d);
}

/* Goes on where it was when the daemon did not read. */
static void tell_doors(struct gate *g)
{
	while (g->telling) {
		if (g->telling == &g->doors) {
			if (tell_word(g, "ready") <= 0)
				return;
			g->telling = NULL;
			break;
		}
		if (tell_door(g, container_of(g->telling, struct door, link)) <= 0)
			return;
		g->telling = g->telling->next;
	}
	if (!g->told_hello)
		return;
	each_door(g, knock);
	each_door(g, reports_flush);
}

/* --- being told ----------------------------------------------------------------------------- */

static void on_hello(struct gate *g)
{
	if (tell_hello(g) <= 0)
		return;
	g->told_hello = true;
	g->telling = g->doors.next;
	for (struct list *l = g->doors.next; l != &g->doors; l = l->next)
		container_of(l, struct door, link)->knocked = false;
	tell_doors(g);
}

static void on_door(struct gate *g, struct gate_message *m)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct door_conf conf;
	struct door *d;

	if (door_conf_parse(m->body, &conf, &e) < 0) {
		log_error("a door that the daemon describes is not understood: %s", err_msg(&e));
		return;
	}
	d = door_find(g, conf.cloud);
	if (d) {
		door_change(d, &conf);
		return;
	}
	if (door_new(g, &conf, m->fds, m->n_fds)) {
		m->n_fds = 0;
		control_doors_changed(g);
		return;
	}
	log_error("cloud %s: what came with its door are not counters and listening sockets",
		conf.cloud);
	door_conf_clear(&conf);
	hang_up(g); /* the daemon would take it for known: it is to tell again */
}

static void on_forget(struct gate *g, const struct gate_message *m)
{
	const char *cloud = json_string_value(json_object_get(m->body, "cloud"));
	struct door *d = cloud ? door_find(g, cloud) : NULL;

	if (!d)
		return;
	if (g->telling == &d->link)
		g->telling = d->link.next;
	door_forget(d);
	control_doors_changed(g);
}

static void obey(struct gate *g, struct gate_message *m)
{
	const char *op = json_string_value(json_object_get(m->body, "op"));

	if (streq(op, "hello"))
		on_hello(g);
	else if (streq(op, "ping"))
		tell_word(g, "pong");
	else if (streq(op, "door"))
		on_door(g, m);
	else if (streq(op, "forget"))
		on_forget(g, m);
}

static void on_daemon(struct watch *w, _unused_ uint32_t events)
{
	struct gate *g = container_of(w, struct gate, daemon);

	for (int i = 0; i < MESSAGE_BUDGET; i++) {
		struct gate_message m;
		int rc;

		gate_use_descriptors(FOR_CONTROL);
		rc = gate_receive(w->fd, &m);
		gate_use_descriptors(FOR_CONNECTIONS);
		if (rc == -EAGAIN) {
			tell_doors(g);
			return;
		}
		if (rc == -EBADMSG)
			continue;
		if (rc <= 0) {
			drop_daemon(g);
			return;
		}
		obey(g, &m);
		gate_message_clear(&m);
	}
	loop_again(&g->loop, w);
}

/* --- connecting ----------------------------------------------------------------------------- */

static bool may_command(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static void on_listener(struct watch *w, _unused_ uint32_t events)
{
	struct gate *g = container_of(w, struct gate, listener);
	int fd;

	for (;;) {
		gate_use_descriptors(FOR_CONTROL);
		fd = accept4(w->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		gate_use_descriptors(FOR_CONNECTIONS);
		if (fd < 0)
			break;
		g->retries = 0;
		if (!may_command(fd)) {
			log_warning("somebody who is neither root nor uid %u wanted to command "
				    "the gate",
				geteuid());
			close(fd);
			continue;
		}
		drop_daemon(g);
		if (loop_watch(&g->loop, &g->daemon, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP) < 0)
			close(fd);
		alone_again(g);
	}
	if (errno == EAGAIN)
		return;
	if (errno != EINTR && !g->retries++)
		log_warning(
			"the gate cannot take the daemon's connection yet: %s", strerror(errno));
	timer_set(&g->loop, &g->retry, g->loop.now + GATE_RETRY_MS); /* no edge comes again */
}

static void on_retry(struct timer *t)
{
	struct gate *g = container_of(t, struct gate, retry);

	on_listener(&g->listener, 0);
}

int control_init(struct gate *g)
{
	watch_init(&g->listener, on_listener);
	watch_init(&g->daemon, on_daemon);
	timer_init(&g->alone, on_alone);
	timer_init(&g->retry, on_retry);
	alone_again(g);
	return loop_watch(&g->loop, &g->listener, STDIN_FILENO, EPOLLIN);
}

void control_free(struct gate *g)
{
	drop_daemon(g);
	timer_stop(&g->alone);
	timer_stop(&g->retry);
	loop_unwatch(&g->loop, &g->listener);
}

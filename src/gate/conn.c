#include <errno.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "gate/gate.h"

#define ALL_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI)

static void set_option(int fd, int level, int option, int value)
{
	setsockopt(fd, level, option, &value, sizeof(value));
}

/* What is written goes at once: it was written at once by who wrote it. And a peer that vanished
 * without a word does not stay for ever. Within the machine nothing is congested; a congestion
 * control that paces (BBR), where that is the system's, costs a third of the throughput there. Reno
 * is in every kernel, and for everybody. */
void conn_tune(int fd, bool near)
{
	set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
	set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
	if (near)
		setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", strlen("reno"));
}

/* The only place where the state changes: lists and counters go with it. */
static void set_state(struct conn *c, enum conn_state state)
{
	struct door *d = c->door;

	if (c->state == CONN_HELD)
		door_count(d, held, -1);
	else if (c->state == CONN_PASSING)
		door_count(d, connections, -1);
	list_del(&c->link);
	c->state = state;
	c->since = d->gate->loop.now;
	list_add(&d->conns[state], &c->link);
	if (state == CONN_HELD) {
		door_count(d, held, 1);
		door_count(d, held_total, 1);
		door_traffic(d);
	} else if (state == CONN_PASSING) {
		door_count(d, connections, 1);
		door_count(d, passed_total, 1);
		door_traffic(d);
	}
}

static void close_side(struct conn *c, struct side *s, bool rst)
{
	int fd = s->w.fd;

	loop_unwatch(&c->door->gate->loop, &s->w);
	s->w.fd = -1;
	if (fd < 0)
		return;
	if (rst)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
			sizeof(struct linger));
	close(fd);
}

static void conn_end(struct conn *c, bool rst)
{
	pass_clear(c);
	timer_stop(&c->timer);
	close_side(c, &c->client, rst);
	close_side(c, &c->server, rst);
	set_state(c, CONN_NEW);
	list_del(&c->link);
	free(c);
}

void conn_close(struct conn *c)
{
	conn_end(c, false);
}

void conn_reset(struct conn *c)
{
	conn_end(c, true);
}

void conn_refuse(struct conn *c, const char *why)
{
	door_count(c->door, refused_total, 1);
	if (why)
		report_refused(c->door, c->uid, why);
	conn_reset(c);
}

/* A FIN, not an RST: the client then says that the server closed without an answer ("Remote end
 * closed connection without response" in Python, "Empty reply from server" in curl), which is what
 * happened; "Connection reset by peer" would look like a broken network. For close(2) to send one
 * the request has to be thrown away first. */
void conn_expire(struct conn *c)
{
	int fd = c->client.w.fd;

	door_count(c->door, expired_total, 1);
	shutdown(fd, SHUT_WR);
	/* tcp(7): with MSG_TRUNC nothing is copied. One that sends on and on gets its RST. */
	for (int i = 0; i < 16 && recv(fd, NULL, 1 << 20, MSG_TRUNC | MSG_DONTWAIT) > 0; i++)
		;
	conn_close(c);
}

/* A client that hung up while it waited has given up, even one that only shut down its sending
 * side: an HTTP client does that after its timeout and sends the request anew, and passed on later
 * it would run twice. A FIN behind more bytes than our buffer holds is not seen yet; then nobody
 * holds the client's socket any more. */
static bool client_waits(struct conn *c)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	if (getsockopt(c->client.w.fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 ||
		info.tcpi_state != TCP_ESTABLISHED)
		return false;
	return c->uid == UID_UNKNOWN || who_is(&c->door->gate->who, c->client.w.fd) == c->uid;
}

static void fail(struct conn *c, int error)
{
	door_count(c->door, failed_total, 1);
	report_unreachable(c->door, error);
	conn_reset(c);
}

/* Connecting from the very port that one connects to, where nobody listens, leads back to oneself:
 * member 0 is within the range for outgoing connections. */
static bool is_self(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t here_len = sizeof(here), there_len = sizeof(there);

	return getsockname(fd, (struct sockaddr *)&here, &here_len) == 0 &&
	       getpeername(fd, (struct sockaddr *)&there, &there_len) == 0 &&
	       here_len == there_len && memcmp(&here, &there, here_len) == 0;
}

static void established(struct conn *c)
{
	if (is_self(c->server.w.fd)) {
		fail(c, ECONNREFUSED);
		return;
	}
	timer_stop(&c->timer);
	set_state(c, CONN_PASSING);
	/* What the edges told before, nobody noted. */
	c->client.readable = c->client.writable = c->client.urgent = true;
	c->server.readable = c->server.writable = c->server.urgent = true;
	pass_events(c, NULL, 0);
}

static void on_server(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, server.w);
	int error = 0;
	socklen_t len = sizeof(error);

	if (c->state == CONN_PASSING) {
		pass_events(c, &c->server, events);
		return;
	}
	if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
		return;
	getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error)
		fail(c, error);
	else if (events & EPOLLOUT)
		established(c);
}

static void on_client(struct watch *w, uint32_t events)
{
	struct conn *c = container_of(w, struct conn, client.w);

	switch (c->state) {
	case CONN_PASSING:
		pass_events(c, &c->client, events);
		break;
	case CONN_CONNECTING: /* a FIN passes; bytes stay where they are until there is a way */
		if (events & (EPOLLERR | EPOLLHUP))
			conn_reset(c);
		break;
	case CONN_CHECKING:
	case CONN_HELD:
		if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
			conn_reset(c); /* client_waits() says why */
		break;
	case CONN_NEW:
		break;
	}
}

/* No descriptor: they come free again. Anything else is how member 0 is. */
static bool is_lack(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

static int try_connect(struct conn *c)
{
	const struct door_conf *conf = &c->door->conf;
	int fd = socket(conf->member.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), rc;

	if (fd < 0)
		return -errno;
	conn_tune(fd, true);
	rc = loop_watch(&c->door->gate->loop, &c->server.w, fd, ALL_EVENTS);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	/* Even when it is there at once the loop will say so. */
	if (connect(fd, (const struct sockaddr *)&conf->member, conf->member_len) == 0 ||
		errno == EINPROGRESS)
		return 0;
	rc = -errno;
	close_side(c, &c->server, true);
	return rc;
}

static void connect_or_wait(struct conn *c)
{
	struct loop *l = &c->door->gate->loop;
	int rc = try_connect(c);

	if (rc == 0)
		timer_set(l, &c->timer, c->since + GATE_CONNECT_MS);
	else if (is_lack(-rc) && l->now < c->since + GATE_CONNECT_MS)
		timer_set(l, &c->timer, l->now + GATE_RETRY_MS);
	else
		fail(c, -rc);
}

static void on_timer(struct timer *t)
{
	struct conn *c = container_of(t, struct conn, timer);

	if (c->state == CONN_PASSING)
		pass_events(c, NULL, 0);
	else if (c->server.w.fd < 0)
		connect_or_wait(c);
	else
		fail(c, ETIMEDOUT);
}

void conn_connect(struct conn *c)
{
	if (c->state == CONN_HELD && !client_waits(c)) {
		conn_reset(c);
		return;
	}
	set_state(c, CONN_CONNECTING);
	connect_or_wait(c);
}

void conn_hold(struct conn *c)
{
	/* Who was asked about has its place already. */
	if (c->state != CONN_CHECKING && !door_has_room(c->door)) {
		conn_refuse(c, "too many are waiting");
		return;
	}
	timer_stop(&c->timer);
	close_side(c, &c->server, true);
	/* Edges of before do not come again. */
	set_state(c, CONN_HELD);
	if (client_waits(c))
		door_held(c->door);
	else
		conn_reset(c);
}

void conn_admit(struct conn *c)
{
	switch (c->door->conf.mode) {
	case MODE_OPEN:
		conn_connect(c);
		break;
	case MODE_HOLD:
		conn_hold(c);
		break;
	case MODE_REFUSE:
		conn_refuse(c, NULL);
		break;
	}
}

static bool is_listed(const struct door_conf *conf, uid_t uid)
{
	if (uid == 0)
		return true;
	for (size_t i = 0; i < conf->n_uids; i++)
		if (conf->uids[i] == uid)
			return true;
	return false;
}

/* Who is it, and may they come in? */
static enum verdict judge(struct conn *c)
{
	const struct door_conf *conf = &c->door->conf;

	if (conf->anyone)
		return VERDICT_YES;
	c->uid = who_is(&c->door->gate->who, c->client.w.fd);
	if (c->uid == UID_UNKNOWN)
		return VERDICT_NO;
	if (is_listed(conf, c->uid))
		return VERDICT_YES;
	return conf->names.n ? groups_ask(c->door, c->uid) : VERDICT_NO;
}

static void refuse_judged(struct conn *c)
{
	conn_refuse(c, c->uid == UID_UNKNOWN ? "it is not known whose connection this is"
					     : "this user may not use the cloud");
}

void conn_judge_again(struct conn *c)
{
	switch (judge(c)) {
	case VERDICT_YES:
		break;
	case VERDICT_NO:
		refuse_judged(c);
		break;
	case VERDICT_WAIT:
		set_state(c, CONN_CHECKING);
		break;
	}
}

void conn_new(struct door *d, int fd)
{
	struct conn *c = xcalloc(1, sizeof(*c));

	c->door = d;
	c->uid = UID_UNKNOWN;
	c->in.pipe = c->out.pipe = PIPE_NULL;
	list_init(&c->link);
	timer_init(&c->timer, on_timer);
	watch_init(&c->client.w, on_client);
	watch_init(&c->server.w, on_server);
	c->client.w.fd = fd;
	door_count(d, accepted_total, 1);
	if (d->conf.mode == MODE_REFUSE) {
		conn_refuse(c, NULL);
		return;
	}
	if (loop_watch(&d->gate->loop, &c->client.w, fd, ALL_EVENTS) < 0) {
		conn_refuse(c, "there is no memory");
		return;
	}
	switch (judge(c)) {
	case VERDICT_YES:
		conn_admit(c);
		break;
	case VERDICT_NO:
		refuse_judged(c);
		break;
	case VERDICT_WAIT:
		if (door_has_room(d))
			set_state(c, CONN_CHECKING);
		else
			conn_refuse(c, "too many are waiting");
		break;
	}
}

/* Membership as in h2o-core water/Paxos.java and HeartBeatThread.java: every node tells its
 * heartbeat to its flatfile and to all that it has heard; the cloud changes when the hashes of all
 * agree, and there is consensus when all say that they agree. Nobody is ever removed. */
#include "fake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <sys/socket.h>

#include "base/clock.h"

enum msg_kind {
	MSG_HEARTBEAT,
	MSG_KILL,     /* arg: enum kill_reason */
	MSG_TYPE_ASK, /* arg: type */
	MSG_TYPE,     /* arg: type */
	MSG_SHUTDOWN,
	MSG_SHUTDOWN_OK,
};

enum kill_reason { KILL_LOCKED, KILL_MISMATCH, KILL_ERROR };

#define MAGIC 0x46414b45u

struct msg {
	uint32_t magic, kind, name_hash, arg;
	uint32_t port; /* API port of the sender */
	struct heartbeat hb;
};

uint64_t gossip_scaled(const struct node *n, uint64_t ms)
{
	return MAX(ms * (uint64_t)knob(n, KNOB_heartbeat_ms) / 1000, (uint64_t)1);
}

static uint32_t hash_text(const char *s)
{
	uint32_t h = 2166136261u;

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 16777619u;
	return h;
}

static uint32_t hash_peer(const struct peer *p)
{
	uint64_t x = ((uint64_t)p->ip.s_addr << 16) | p->port;

	return (uint32_t)(rng_next(&x) >> 32);
}

struct peer *gossip_peer(struct node *n, struct in_addr ip, uint16_t port)
{
	struct gossip *g = &n->g;

	if (g->n_peers == 0) { /* ourself first */
		g->peers[0] = (struct peer){.ip = n->ip, .port = n->port};
		g->n_peers = 1;
	}
	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i].ip.s_addr == ip.s_addr && g->peers[i].port == port)
			return &g->peers[i];
	if (g->n_peers == MAX_PEERS)
		return NULL;
	g->peers[g->n_peers] = (struct peer){.ip = ip, .port = port};
	return &g->peers[g->n_peers++];
}

static const char *address(const struct peer *p)
{
	static char text[2][32];
	static unsigned turn;
	char *t = text[turn++ % 2];

	snprintf(t, sizeof(text[0]), "%s:%d", inet_ntoa(p->ip), p->port);
	return t;
}

/* As H2O cuts the names of its threads. */
static const char *last_ten(const char *s)
{
	size_t len = strlen(s);

	return len > 10 ? s + len - 10 : s;
}

static void send_msg(struct node *n, const struct peer *to, enum msg_kind kind, uint32_t arg)
{
	struct msg m = {.magic = MAGIC,
		.kind = kind,
		.name_hash = n->g.name_hash,
		.arg = arg,
		.port = n->port,
		.hb = n->g.peers[0].hb};
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_addr = to->ip,
		.sin_port = htons((uint16_t)(to->port + n->h2o.port_offset))};

	if (knob(n, KNOB_isolate))
		return;
	/* The first call may only tell of an earlier refusal. */
	for (int i = 0; i < 2; i++)
		if (sendto(n->g.fd, &m, sizeof(m), 0, (struct sockaddr *)&sa, sizeof(sa)) >= 0)
			return;
}

/* A refused connect makes H2O's send thread sleep 5 s before it tries again. */
void gossip_poll_errors(struct node *n)
{
	uint64_t sleep = knob(n, KNOB_connect_sleep_ms) >= 0
				 ? (uint64_t)knob(n, KNOB_connect_sleep_ms)
				 : gossip_scaled(n, 5000);
	uint64_t now = clock_monotonic_ms();

	for (;;) {
		struct sockaddr_in sa = {0};
		char data[256], control[512];
		struct iovec iov = {data, sizeof(data)};
		struct msghdr h = {.msg_name = &sa,
			.msg_namelen = sizeof(sa),
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control,
			.msg_controllen = sizeof(control)};
		struct peer *p;

		if (recvmsg(n->g.fd, &h, MSG_ERRQUEUE) < 0)
			return;
		p = gossip_peer(
			n, sa.sin_addr, (uint16_t)(ntohs(sa.sin_port) - n->h2o.port_offset));
		if (!p || p->muted_until > now)
			continue;
		p->muted_until = now + sleep;
		if (n->g.locked)
			console_log(n, LVL_ERROR, last_ten(address(p)),
				"Got IO error when sending a batch of bytes: \n"
				"java.net.ConnectException: Connection refused\n"
				"\tat java.base/sun.nio.ch.Net.connect0(Native Method)\n"
				"\tat water.H2ONode.openChan(H2ONode.java:496)");
	}
}

static int compare_members(const void *a, const void *b, void *arg)
{
	const struct node *n = arg;
	const struct peer *p = &n->g.peers[*(const size_t *)a],
			  *q = &n->g.peers[*(const size_t *)b];

	if (p->ip.s_addr != q->ip.s_addr)
		return ntohl(p->ip.s_addr) < ntohl(q->ip.s_addr) ? -1 : 1;
	return (int)p->port - (int)q->port;
}

static void set_next_cloud(struct node *n)
{
	struct gossip *g = &n->g;

	g->cloud_size = 0;
	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i].proposed)
			g->cloud[g->cloud_size++] = i;
	qsort_r(g->cloud, g->cloud_size, sizeof(g->cloud[0]), compare_members, n);
	g->peers[0].hb.cloud_size = (uint32_t)g->cloud_size;
}

static void announce(struct node *n)
{
	struct gossip *g = &n->g;
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < g->cloud_size; i++)
		strbuf_printf(&b, "%slocalhost/%s", i ? ", " : "", address(&g->peers[g->cloud[i]]));
	console_log(n, LVL_INFO, g->cloud_size == 1 ? "main" : "FJ-126-3",
		"Cloud of size %zu formed [%s]", g->cloud_size, strbuf_str(&b));
	strbuf_free(&b);
	files_notify(n);
}

/* The steps of Paxos.doHeartbeat() once the membership question is settled. */
static void vote(struct node *n)
{
	struct gossip *g = &n->g;
	uint32_t hash = g->peers[0].hb.cloud_hash;

	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i].proposed && g->peers[i].hb.cloud_hash != hash)
			return;
	set_next_cloud(n);
	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i].proposed && g->peers[i].hb.cloud_size != g->cloud_size)
			return;
	g->peers[0].hb.common_knowledge = 1;
	for (size_t i = 0; i < g->n_peers; i++)
		if (g->peers[i].proposed && !g->peers[i].hb.common_knowledge)
			return;
	g->common_knowledge = true;
	announce(n);
}

static void on_heartbeat(struct node *n, struct peer *p)
{
	struct gossip *g = &n->g;

	if (!n->h2o.md5skip && p->hb.md5 != g->peers[0].hb.md5) {
		if (g->cloud_size <= 1)
			node_die(n,
				"Attempting to join %s with an H2O version mismatch (md5 differs). "
				" "
				"(Is H2O already running?)  Exiting.",
				address(p));
		console_log(n, LVL_WARN, "FJ-126-1",
			"Killing /%s because of H2O version mismatch (md5 differs).", address(p));
		send_msg(n, p, MSG_KILL, KILL_MISMATCH);
		return;
	}
	if (!p->proposed) {
		if (g->locked) {
			console_log(n, LVL_WARN, "FJ-126-1",
				"Killing /%s because the cloud is no longer accepting new H2O "
				"nodes.",
				address(p));
			send_msg(n, p, MSG_KILL, KILL_LOCKED);
			return;
		}
		g->common_knowledge = false;
		g->peers[0].hb.common_knowledge = 0;
		p->proposed = true;
		g->peers[0].hb.cloud_hash += hash_peer(p);
	} else if (g->common_knowledge) {
		return;
	}
	vote(n);
}

static void on_kill(struct node *n, const struct peer *killer, uint32_t reason) _noreturn_;

static void on_kill(struct node *n, const struct peer *killer, uint32_t reason)
{
	static const char *const texts[] = {
		"Attempting to join an H2O cloud that is no longer accepting new H2O nodes",
		("Attempting to join an H2O cloud with a different H2O version (is H2O already "
		 "running?)"),
		"Error leading to a cloud kill"};

	console_log(
		n, LVL_ERROR, "FJ-126-1", "%s from /%s", texts[MIN(reason, 2u)], address(killer));
	node_die(n, "Exiting.");
}

static void exit_orderly(struct node *n, int64_t arg)
{
	unsigned unconfirmed = 0;

	(void)arg;
	for (size_t i = 0; i < n->g.cloud_size && n->g.shutting_down; i++)
		if (n->g.cloud[i] != 0 && !n->g.peers[n->g.cloud[i]].confirmed)
			unconfirmed++;
	console_log(n, LVL_INFO, "Thread-9", "Orderly shutdown:  Shutting down now.");
	node_exit(n, (int)unconfirmed);
}

static void on_msg(struct node *n, const struct msg *m, struct peer *p)
{
	struct gossip *g = &n->g;

	switch ((enum msg_kind)m->kind) {
	case MSG_HEARTBEAT:
		on_heartbeat(n, p);
		break;
	case MSG_KILL:
		on_kill(n, p, m->arg);
	case MSG_TYPE_ASK: /* the leader takes part, so it locks too */
		if (gossip_lock(n, "TypeMap"))
			send_msg(n, p, MSG_TYPE, m->arg);
		break;
	case MSG_TYPE:
		g->types_known |= UINT64_C(1) << m->arg;
		g->types_wanted &= ~(UINT64_C(1) << m->arg);
		break;
	case MSG_SHUTDOWN:
		send_msg(n, p, MSG_SHUTDOWN_OK, 0);
		if (!g->orderly)
			timer_after(gossip_scaled(n, 500), exit_orderly, 0);
		g->orderly = true;
		break;
	case MSG_SHUTDOWN_OK:
		p->confirmed = true;
		break;
	}
}

/* An open connection that has said nothing occupies the accepting thread; a bricked one for good.
 */
static bool deaf_to(const struct node *n, const struct peer *p, uint32_t boot)
{
	if (p->heard && p->hb.boot == boot)
		return false;
	if (n->g.bricked)
		return true;
	for (size_t i = 0; i < MAX_CONNS; i++)
		if (n->conns[i].fd >= 0 && n->conns[i].internal)
			return true;
	return false;
}

void gossip_receive(struct node *n)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	struct msg m;
	ssize_t r;

	while ((r = recvfrom(n->g.fd, &m, sizeof(m), 0, (struct sockaddr *)&sa, &len)) >= 0) {
		struct peer *p;

		if (r != (ssize_t)sizeof(m) || m.magic != MAGIC || m.name_hash != n->g.name_hash ||
			knob(n, KNOB_isolate))
			continue;
		p = gossip_peer(n, sa.sin_addr, (uint16_t)m.port);
		if (!p || p == &n->g.peers[0] || deaf_to(n, p, m.hb.boot))
			continue;
		if (p->heard && p->hb.boot != m.hb.boot)
			p->muted_until = 0; /* it came back: a new connection */
		p->heard = true;
		p->last_heard = clock_monotonic_ms();
		p->last_ping_wall = clock_wall_ms();
		p->hb = m.hb;
		on_msg(n, &m, p);
	}
}

static void tick(struct node *n, int64_t arg)
{
	struct gossip *g = &n->g;
	uint64_t now = clock_monotonic_ms();

	(void)arg;
	g->peers[0].hb.pid = (uint32_t)getpid();
	g->peers[0].last_heard = now;
	g->peers[0].last_ping_wall = clock_wall_ms();
	for (size_t i = 1; i < g->n_peers; i++) {
		struct peer *p = &g->peers[i];

		if (!(p->in_flatfile || p->proposed) || p->muted_until > now)
			continue;
		send_msg(n, p, MSG_HEARTBEAT, 0);
		if (g->shutting_down && p->proposed && !p->confirmed)
			send_msg(n, p, MSG_SHUTDOWN, 0);
	}
	for (uint32_t t = 0; t < 64 && g->types_wanted; t++)
		if (g->types_wanted >> t & 1)
			send_msg(n, &g->peers[g->cloud[0]], MSG_TYPE_ASK, t);
	timer_after((uint64_t)knob(n, KNOB_heartbeat_ms), tick, 0);
}

/* RestApiPingCheckThread: only when locked, only on the leader, and nothing counts as never. */
static void check_rest_ping(struct node *n, int64_t period)
{
	struct gossip *g = &n->g;

	if (g->locked && g->cloud[0] == 0 &&
		clock_wall_ms() - g->last_rest_ping > (uint64_t)period) {
		for (size_t i = 1; i < g->cloud_size; i++)
			send_msg(n, &g->peers[g->cloud[i]], MSG_KILL, KILL_ERROR);
		node_die(n,
			"Stopping H2O cluster since we haven't received any REST api request on "
			"3/Ping!");
	}
	timer_after((uint64_t)period, check_rest_ping, period);
}

void gossip_start(struct node *n)
{
	struct gossip *g = &n->g;
	struct peer *self = gossip_peer(n, n->ip, n->port);

	g->started = true;
	g->name_hash = hash_text(n->h2o.name);
	self->proposed = self->heard = true;
	self->last_heard = clock_monotonic_ms();
	self->last_ping_wall = clock_wall_ms();
	self->hb = (struct heartbeat){
		.cloud_hash = hash_peer(self),
		.md5 = (uint32_t)knob(n, KNOB_md5),
		.nthreads = (uint32_t)(n->h2o.nthreads > 0 ? n->h2o.nthreads
							   : sysconf(_SC_NPROCESSORS_ONLN)),
		.boot = (uint32_t)(n->start_wall * 2654435761u) ^ (uint32_t)getpid(),
		.max_mem = n->jvm.xmx ? n->jvm.xmx : (uint64_t)1 << 30,
	};
	self->hb.free_mem = self->hb.max_mem;
	set_next_cloud(n);
	vote(n);
	timer_after((uint64_t)knob(n, KNOB_heartbeat_ms), tick, 0);
	if (n->h2o.ping_timeout > 0)
		timer_after((uint64_t)n->h2o.ping_timeout, check_rest_ping, n->h2o.ping_timeout);
}

bool gossip_lock(struct node *n, const char *reason)
{
	struct gossip *g = &n->g;

	if (g->locked)
		return true;
	if (!g->lock_wanted)
		console_log(n, LVL_INFO, "3581655-16", "Locking cloud to new members, because %s",
			reason);
	g->lock_wanted = true;
	if (!gossip_consensus(n))
		return false;
	g->locked = true;
	for (size_t i = 0; i < g->n_peers; i++) {
		if (g->peers[i].in_flatfile && !g->peers[i].proposed)
			console_log(n, LVL_WARN, "3581655-16",
				"Flatfile entry ignored: Node %s not active in this cloud. "
				"Removing it "
				"from the list.",
				address(&g->peers[i]));
		g->peers[i].in_flatfile = g->peers[i].proposed;
	}
	return true;
}

bool gossip_type_known(struct node *n, unsigned type)
{
	struct gossip *g = &n->g;
	uint64_t bit = UINT64_C(1) << type;

	if (g->cloud[0] == 0 || (g->types_known & bit))
		return true;
	if (!(g->types_wanted & bit))
		send_msg(n, &g->peers[g->cloud[0]], MSG_TYPE_ASK, type);
	g->types_wanted |= bit;
	return false;
}

bool gossip_silent_member(const struct node *n)
{
	uint64_t now = clock_monotonic_ms();

	for (size_t i = 0; i < n->g.cloud_size; i++) {
		const struct peer *p = &n->g.peers[n->g.cloud[i]];

		if (n->g.cloud[i] != 0 && now - p->last_heard > gossip_scaled(n, 3000))
			return true;
	}
	return false;
}

void gossip_shutdown(struct node *n)
{
	struct gossip *g = &n->g;

	if (g->shutting_down)
		return;
	g->shutting_down = true;
	for (size_t i = 0; i < g->cloud_size; i++)
		if (g->cloud[i] != 0)
			send_msg(n, &g->peers[g->cloud[i]], MSG_SHUTDOWN, 0);
	timer_after(gossip_scaled(n, 2000), exit_orderly, 0);
}

bool gossip_healthy(const struct node *n, const struct peer *p)
{
	int64_t limit = knob(n, KNOB_heartbeat_timeout_ms);
	uint64_t timeout = limit > 0 ? (uint64_t)limit : gossip_scaled(n, 60000);

	return p == &n->g.peers[0] || clock_monotonic_ms() - p->last_heard < timeout;
}

unsigned gossip_bad_nodes(const struct node *n)
{
	unsigned bad = 0;

	for (size_t i = 0; i < n->g.cloud_size; i++)
		bad += !gossip_healthy(n, &n->g.peers[n->g.cloud[i]]);
	return bad == 0 && knob(n, KNOB_unhealthy) ? 1 : bad;
}

bool gossip_consensus(const struct node *n)
{
	return n->g.common_knowledge && !knob(n, KNOB_no_consensus);
}

void gossip_brick(struct node *n)
{
	if (!n->g.bricked)
		files_brick(n);
	n->g.bricked = true;
}

/* The gate's control socket, both ways: packets of a daemon that the gate obeys, with doors that it
 * opens, shuts and forgets; what the gate says to that must be messages of the protocol. Packets
 * are behind lines "--"; a "door" comes with counters and a listening socket where it begins with
 * '+'. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "drv/gate_wire.h"
#include "gate/gate.h"

#define MAX_PACKETS 24

static int counters = -1, port_socket = -1;

void fuzz_begin(void)
{
	log_set_level((enum log_level)0);
	counters = memfd_create("counters", MFD_CLOEXEC);
	fuzz_check(counters >= 0);
}

/* A socket that is bound as the daemon does it. One for all: it is never listened on for long. */
static int listener(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	if (port_socket >= 0)
		return port_socket;
	port_socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fuzz_check(port_socket >= 0 && bind(port_socket, (struct sockaddr *)&sa, sizeof(sa)) == 0);
	return port_socket;
}

/* Raw, for gate_send() would send JSON only. */
static void send_packet(int fd, const char *text, size_t len, bool with_fds)
{
	int fds[2] = {counters, listener()};
	struct iovec iov = {.iov_base = (void *)text, .iov_len = len};
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(fds))];
	} room = {.buf = {0}};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (with_fds) {
		struct cmsghdr *c;

		m.msg_control = room.buf;
		m.msg_controllen = sizeof(room.buf);
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(fds));
		memcpy(CMSG_DATA(c), fds, sizeof(fds));
	}
	n = sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	(void)n;
}

/* What the gate has said. */
static void hear(int fd)
{
	static const char *const ops[] = {
		"hello", "door", "ready", "knock", "refused", "unreachable", "pong"};
	struct gate_message m;

	while (gate_receive(fd, &m) == 1) {
		const char *op = json_string_value(json_object_get(m.body, "op"));
		bool known = false;

		for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
			known |= streq(op, ops[i]);
		fuzz_check_text(known, op);
		fuzz_check(m.n_fds == 0 || (streq(op, "door") && m.n_fds == 2));
		gate_message_clear(&m);
	}
}

static void check_doors(struct gate *g)
{
	for (struct list *l = g->doors.next; l != &g->doors; l = l->next) {
		struct door *d = container_of(l, struct door, link);

		fuzz_check(d->conf.cloud && d->counters && d->n_listeners == 1);
		fuzz_check(
			d->conf.mode != MODE_REFUSE || d->conf.foreign || !d->listeners[0].listens);
		fuzz_check(door_find(g, d->conf.cloud) == d);
	}
}

/* The first part of on_daemon()'s turn, without waiting. */
static void turn(struct gate *g)
{
	g->loop.now = clock_monotonic_ms();
	g->daemon.on(&g->daemon, EPOLLIN);
	check_doors(g);
}

static void end_gate(struct gate *g)
{
	struct door *d;

	while ((d = list_first(&g->doors, struct door, link)))
		door_forget(d);
	groups_free(g);
	control_free(g);
	pipes_free(&g->pipes);
	who_free(&g->who);
	loop_free(&g->loop);
}

/* The gate as gate_main() makes it, its standard input aside. */
static void begin_gate(struct gate *g, int fd)
{
	*g = (struct gate){.who = WHO_NULL};
	list_init(&g->doors);
	list_init(&g->lookups);
	fuzz_check(loop_init(&g->loop) == 0);
	g->loop.now = clock_monotonic_ms();
	control_init(g);
	fuzz_check(loop_watch(&g->loop, &g->daemon, fd, EPOLLIN) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	static struct gate g;
	int ends[2];

	fuzz_check(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	begin_gate(&g, ends[0]);
	for (int i = 0; i < MAX_PACKETS && in.n; i++) {
		size_t len;
		_cleanup_free_ char *packet = fuzz_part(&in, &len);
		bool with_fds = packet[0] == '+';

		if (g.daemon.fd < 0)
			break;
		send_packet(ends[1], packet + with_fds, len - with_fds, with_fds);
		turn(&g);
		hear(ends[1]);
	}
	end_gate(&g);
	closep(&ends[1]);
	return 0;
}

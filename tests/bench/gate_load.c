/* Load for what passes TCP bytes on: a server, the clients, and what they measured as one JSON
 * object on stdout. Plain blocking sockets and large buffers, so that most of the time is the
 * kernel's and the proxy's. Started by tests/bench/gate, which says who runs on which core. */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "base/text.h"
#include "base/util.h"

#define CHUNK      (256u << 10)
#define MAX_EVENTS 256

/* What the client wants; answered by the server. The first bytes of each connection. */
struct request {
	char op;        /* 'u'p, 'd'own, 'e'cho */
	char check;     /* the bytes are a pattern; an upload ends with a half-close */
	char unused[6]; /* whole words follow */
	uint64_t bytes; /* of the stream */
};

/* To an upload, when all is there. */
struct answer {
	uint64_t bytes;
	uint64_t wrong; /* words that were not as they should be */
};

static _noreturn_ void fail(const char *what)
{
	fprintf(stderr, "gate_load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void no_delay(int fd)
{
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static struct sockaddr_in loopback(const char *port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons((uint16_t)strtoul(port, NULL, 10)),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int dial(const struct sockaddr_in *to)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0)
		fail("connect");
	no_delay(fd);
	return fd;
}

static void send_all(int fd, const void *buf, size_t n)
{
	const char *at = buf;

	while (n) {
		ssize_t sent = send(fd, at, n, MSG_NOSIGNAL);

		if (sent < 0)
			fail("send");
		at += sent;
		n -= (size_t)sent;
	}
}

/* Less than `n` only at the end of the stream. */
static size_t receive_all(int fd, void *buf, size_t n)
{
	size_t have = 0;

	while (have < n) {
		ssize_t got = recv(fd, (char *)buf + have, n - have, 0);

		if (got < 0)
			fail("recv");
		if (got == 0)
			break;
		have += (size_t)got;
	}
	return have;
}

/* Streams */

static uint64_t pattern(uint64_t word)
{
	return (word + 1) * 0x9e3779b97f4a7c15u;
}

static void send_stream(int fd, const struct request *rq)
{
	static uint64_t buf[CHUNK / 8];
	uint64_t word = 0;

	for (uint64_t left = rq->bytes; left;) {
		size_t n = MIN(left, (uint64_t)sizeof(buf));

		for (size_t i = 0; rq->check && i < n / 8; i++)
			buf[i] = pattern(word++);
		send_all(fd, buf, n);
		left -= n;
	}
}

/* To the end, or as far as `limit`. Where nothing is checked, reads are as short as they come. */
static struct answer receive_stream(int fd, bool check, uint64_t limit)
{
	static uint64_t buf[CHUNK / 8];
	struct answer a = {0};
	uint64_t word = 0;

	while (a.bytes < limit) {
		size_t want = MIN(limit - a.bytes, (uint64_t)sizeof(buf));
		size_t n;

		if (check) {
			n = receive_all(fd, buf, want);
		} else {
			ssize_t got = recv(fd, buf, want, 0);

			if (got < 0)
				fail("recv");
			n = (size_t)got;
		}
		if (n == 0)
			break;
		for (size_t i = 0; check && i < n / 8; i++)
			a.wrong += buf[i] != pattern(word++);
		a.bytes += n;
	}
	return a;
}

/* One stream, from the connect to the last byte seen at the other end. */
static bool run_stream(const struct sockaddr_in *to, const struct request *rq)
{
	int fd = dial(to);
	struct answer a = {0};

	send_all(fd, rq, sizeof(*rq));
	if (rq->op == 'u') {
		send_stream(fd, rq);
		if (rq->check)
			shutdown(fd, SHUT_WR);
		if (receive_all(fd, &a, sizeof(a)) != sizeof(a))
			fputs("gate_load: no answer to an upload\n", stderr);
	} else {
		a = receive_stream(fd, rq->check, UINT64_MAX);
	}
	close(fd);
	if (a.bytes == rq->bytes && a.wrong == 0)
		return true;
	fprintf(stderr, "gate_load: %" PRIu64 " of %" PRIu64 " bytes, %" PRIu64 " wrong words\n",
		a.bytes, rq->bytes, a.wrong);
	return false;
}

static int command_stream(char **argv)
{
	struct sockaddr_in to = loopback(argv[0]);
	struct request rq = {.op = argv[1][0], .check = streq(argv[4], "check")};
	unsigned streams = (unsigned)strtoul(argv[2], NULL, 10);
	uint64_t begun;
	bool good = true;
	int status;

	if (text_parse_size(argv[3], &rq.bytes) < 0 || streams == 0)
		return 2;
	rq.bytes = rq.bytes / streams / 8 * 8;
	begun = now_ns();
	for (unsigned i = 0; i < streams; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid == 0)
			_exit(run_stream(&to, &rq) ? 0 : 1);
	}
	while (wait(&status) > 0)
		good &= status == 0;
	printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.6f, \"good\": %s}\n", rq.bytes * streams,
		(double)(now_ns() - begun) / 1e9, good ? "true" : "false");
	return good ? 0 : 1;
}

/* Latency */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double percentile_us(const uint64_t *sorted, size_t n, double p)
{
	return (double)sorted[MIN((size_t)(p * (double)n), n - 1)] / 1e3;
}

static void print_times(uint64_t *ns, size_t n, double seconds)
{
	qsort(ns, n, sizeof(*ns), compare);
	printf("{\"count\": %zu, \"seconds\": %.6f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, "
	       "\"p999\": %.2f, \"max\": %.2f}\n",
		n, seconds, percentile_us(ns, n, 0.5), percentile_us(ns, n, 0.9),
		percentile_us(ns, n, 0.99), percentile_us(ns, n, 0.999), percentile_us(ns, n, 1));
}

static void sleep_until(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static void exchange(int fd, char *buf, size_t size)
{
	send_all(fd, buf, size);
	if (receive_all(fd, buf, size) != size) {
		errno = ECONNRESET;
		fail("an echo");
	}
}

/* There and back, one after the other, or so many a second: then everybody sleeps in between. */
static int command_pingpong(char **argv)
{
	struct sockaddr_in to = loopback(argv[0]);
	size_t size = strtoul(argv[1], NULL, 10), count = strtoul(argv[2], NULL, 10);
	uint64_t rate = strtoul(argv[3], NULL, 10);
	_cleanup_free_ uint64_t *ns = xcalloc(count, sizeof(*ns));
	_cleanup_free_ char *buf = xcalloc(1, size);
	uint64_t begun;
	int fd = dial(&to);

	send_all(fd, &(struct request){.op = 'e'}, sizeof(struct request));
	for (unsigned i = 0; i < 200; i++)
		exchange(fd, buf, size);
	begun = now_ns();
	for (size_t i = 0; i < count; i++) {
		uint64_t at;

		if (rate)
			sleep_until(begun + i * 1000000000 / rate);
		at = now_ns();
		exchange(fd, buf, size);
		ns[i] = now_ns() - at;
	}
	print_times(ns, count, (double)(now_ns() - begun) / 1e9);
	close(fd);
	return 0;
}

/* Connect, one request, one answer, close. */
static uint64_t visit(const struct sockaddr_in *to)
{
	struct {
		struct request rq;
		char body[48];
	} m = {.rq = {.op = 'e'}};
	uint64_t begun = now_ns();
	int fd = dial(to);

	send_all(fd, &m, sizeof(m));
	if (receive_all(fd, m.body, sizeof(m.body)) != sizeof(m.body)) {
		errno = ECONNRESET;
		fail("an answer");
	}
	close(fd);
	return now_ns() - begun;
}

static int command_connect(char **argv)
{
	struct sockaddr_in to = loopback(argv[0]);
	size_t count = strtoul(argv[1], NULL, 10), clients = strtoul(argv[2], NULL, 10);
	size_t room = count * clients * sizeof(uint64_t);
	uint64_t *ns = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t begun = now_ns();
	bool good = true;
	int status;

	if (ns == MAP_FAILED)
		fail("mmap");
	for (size_t c = 0; c < clients; c++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		for (size_t i = 0; pid == 0 && i < count; i++)
			ns[c * count + i] = visit(&to);
		if (pid == 0)
			_exit(0);
	}
	while (wait(&status) > 0)
		good &= status == 0;
	print_times(ns, count * clients, (double)(now_ns() - begun) / 1e9);
	munmap(ns, room);
	return good ? 0 : 1;
}

/* So many connections that have come through and are silent from then on, until stdin ends. */
static int command_idle(char **argv)
{
	struct sockaddr_in to = loopback(argv[0]);
	size_t count = strtoul(argv[1], NULL, 10);
	char byte = 0;

	for (size_t i = 0; i < count; i++) {
		int fd = dial(&to);

		send_all(fd, &(struct request){.op = 'e'}, sizeof(struct request));
		exchange(fd, &byte, 1);
	}
	puts("{\"ready\": true}");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}

/* The server. Echoes are answered by the one loop; a stream gets a process of its own, which reads
 * or writes as fast as it goes. */

static void serve_stream(int fd, const struct request *rq)
{
	pid_t pid = fork();
	struct answer a;

	if (pid < 0)
		fail("fork");
	if (pid > 0)
		return;
	if (rq->op == 'd') {
		send_stream(fd, rq);
	} else {
		a = receive_stream(fd, rq->check, rq->check ? UINT64_MAX : rq->bytes);
		send_all(fd, &a, sizeof(a));
	}
	_exit(0);
}

static void serve_accept(int listener, int epoll, bool *begun)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};

	if (fd < 0)
		fail("accept");
	no_delay(fd);
	begun[fd] = false;
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev);
}

/* False: it is to be closed. */
static bool serve_bytes(int fd, bool *begun)
{
	static char buf[65536];
	ssize_t n = 0;

	if (!begun[fd]) {
		struct request rq;

		/* Whoever only knocked may have left with a reset. */
		if (recv(fd, &rq, sizeof(rq), MSG_WAITALL) != sizeof(rq))
			return false;
		begun[fd] = true;
		if (rq.op != 'e') {
			serve_stream(fd, &rq);
			return false;
		}
		n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n < 0 && errno == EAGAIN)
			return true;
	} else {
		n = recv(fd, buf, sizeof(buf), 0);
	}
	return n > 0 && send(fd, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

static int command_serve(char **argv)
{
	static bool begun[1u << 20];
	struct sockaddr_in at = loopback(argv[0]);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[MAX_EVENTS], ev = {.events = EPOLLIN, .data.fd = listener};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGCHLD, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(listener, 4096) < 0)
		fail("listen");
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &ev);
	for (;;) {
		int n = epoll_wait(epoll, events, MAX_EVENTS, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == listener) {
				serve_accept(listener, epoll, begun);
			} else if (!serve_bytes(fd, begun)) {
				/* A child may have it still. */
				epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
				close(fd);
			}
		}
	}
}

/* As systemd starts a service with a socket: descriptor FD becomes 3. */
static int command_activate(char **argv)
{
	_cleanup_free_ char *pid = xasprintf("%d", (int)getpid());

	if (dup2((int)strtol(argv[0], NULL, 10), 3) < 0)
		fail("dup2");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setenv("LISTEN_FDS", "1", 1);
	setenv("LISTEN_PID", pid, 1);
	execv(argv[1], argv + 1);
	fail(argv[1]);
}

static const struct command {
	const char *name;
	int n_args; /* at least */
	int (*run)(char **argv);
	const char *usage;
} commands[] = {
	{"serve", 1, command_serve, "PORT"},
	{"stream", 5, command_stream, "PORT up|down STREAMS BYTES check|fast"},
	{"pingpong", 4, command_pingpong, "PORT SIZE COUNT RATE (a second; 0: at once)"},
	{"connect", 3, command_connect, "PORT COUNT CLIENTS"},
	{"idle", 2, command_idle, "PORT COUNT"},
	{"activate", 2, command_activate, "FD PROGRAM [ARGUMENT...]"},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (argc >= commands[i].n_args + 2 && streq(argv[1], commands[i].name))
			return commands[i].run(argv + 2);
	fputs("usage:\n", stderr);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(stderr, "    gate_load %s %s\n", commands[i].name, commands[i].usage);
	return 2;
}

/* Load for the control socket: control_load SOCKET TARGET CONNECTIONS SECONDS. Each connection is
 * kept, and asks again as soon as it has its answer. Prints one line of JSON: requests per second,
 * and how long an answer takes, in microseconds. Any answer but 200 ends it with 1. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_SAMPLES  (4u << 20)
#define ANSWER_BYTES (1u << 20)

struct conn {
	int fd;
	char *buf;
	size_t len;
	uint64_t asked_ns;
};

static char request[512];
static uint32_t *samples; /* nanoseconds / 100 */
static size_t n_samples;
static struct conn *conns;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void ask(struct conn *c)
{
	size_t n = strlen(request);

	c->len = 0;
	c->asked_ns = now_ns();
	if (send(c->fd, request, n, MSG_NOSIGNAL) != (ssize_t)n)
		die("send");
}

static void dial(struct conn *c, const char *path, int epoll)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	c->buf = malloc(ANSWER_BYTES + 1);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!c->buf || connect(c->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		die(path);
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
		die("epoll_ctl");
}

/* The length of the whole answer; 0: not all of the head is there. */
static size_t whole(const struct conn *c)
{
	const char *end = strstr(c->buf, "\r\n\r\n"), *length;

	if (!end)
		return 0;
	length = strcasestr(c->buf, "content-length:");
	if (!length || length > end || strncmp(c->buf, "HTTP/1.1 200", 12) != 0) {
		fprintf(stderr, "%.*s\n", (int)(end - c->buf), c->buf);
		exit(1);
	}
	return (size_t)(end + 4 - c->buf) + strtoul(length + 15, NULL, 10);
}

static void take(struct conn *c)
{
	ssize_t n = recv(c->fd, c->buf + c->len, ANSWER_BYTES - c->len, 0);
	size_t all;

	if (n <= 0)
		die("recv");
	c->len += (size_t)n;
	c->buf[c->len] = '\0';
	all = whole(c);
	if (!all || c->len < all)
		return;
	if (n_samples < MAX_SAMPLES)
		samples[n_samples++] = (uint32_t)((now_ns() - c->asked_ns) / 100);
	ask(c);
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double percentile(double p)
{
	return samples[(size_t)((double)(n_samples - 1) * p)] / 10.0;
}

int main(int argc, char **argv)
{
	int n = argc == 5 ? atoi(argv[3]) : 0, epoll = epoll_create1(EPOLL_CLOEXEC);
	double seconds = argc == 5 ? atof(argv[4]) : 0;
	struct epoll_event events[64];
	uint64_t began, end;

	if (n < 1 || seconds <= 0) {
		fprintf(stderr, "usage: control_load SOCKET TARGET CONNECTIONS SECONDS\n");
		return 2;
	}
	conns = calloc((size_t)n, sizeof(*conns));
	samples = malloc(MAX_SAMPLES * sizeof(*samples));
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: h\r\n\r\n", argv[2]);
	for (int i = 0; i < n; i++)
		dial(&conns[i], argv[1], epoll);
	began = now_ns();
	end = began + (uint64_t)(seconds * 1e9);
	for (int i = 0; i < n; i++)
		ask(&conns[i]);
	while (now_ns() < end) {
		int k = epoll_wait(epoll, events, 64, 100);

		for (int i = 0; i < k; i++)
			take(events[i].data.ptr);
	}
	seconds = (double)(now_ns() - began) / 1e9;
	if (!n_samples)
		return 1;
	qsort(samples, n_samples, sizeof(*samples), compare);
	printf("{\"per_second\": %.0f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
		(double)n_samples / seconds, percentile(0.5), percentile(0.99), percentile(1));
	return 0;
}

/* A hostile node: raw bytes as answers, read by drv/http.c and libcurl, in pieces as an input wants
 * them. Each request is answered once, in the bounds that were asked for; nothing but the node is
 * ever connected to, whatever a redirect or the environment says. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>

#include "drv/http.h"
#include "drv/who.h"
#include "sockets.h"

#define PORT     54321
#define MAX_BODY 3000
#define TURNS    10000

static uv_loop_t loop;
static struct http *http;
static struct fuzz_input input;
static int node = -1; /* the other end of the newest connection */
static unsigned n_connections;

static struct {
	unsigned answers;
	bool cancel; /* in its callback, all ends */
} now;

/* In place of drv/who.c, which would ask the kernel: the node that answers is ours. */
uid_t who_is(struct who *w, int sock)
{
	(void)w;
	(void)sock;
	return geteuid();
}

uid_t who_listens(struct who *w, int sock)
{
	return who_is(w, sock);
}

void who_free(struct who *w)
{
	(void)w;
}

static bool on_connection(int fd, const struct sockaddr *to)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)to;

	fuzz_check(to->sa_family == AF_INET && ntohs(in->sin_port) == PORT &&
		   ntohl(in->sin_addr.s_addr) == INADDR_LOOPBACK);
	closep(&node);
	node = fd;
	n_connections++;
	return true;
}

static void on_answer(const struct http_response *rsp, void *arg)
{
	fuzz_check(arg == &now);
	now.answers++;
	fuzz_check(rsp->body && strlen(rsp->body) <= rsp->body_len);
	fuzz_check(rsp->body_len <= MAX_BODY && !rsp->body[rsp->body_len]);
	fuzz_check((rsp->result == HTTP_OK) == !rsp->error);
	fuzz_check(rsp->result != HTTP_NOT_ASKED && rsp->result != HTTP_TIMEOUT);
	fuzz_check(rsp->result != HTTP_OK || (rsp->status >= 100 && rsp->status <= 999));
	if (now.cancel)
		http_free(TAKE_PTR(http));
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) > 0;
}

/* All that can happen now has. */
static void settle(void)
{
	for (int i = 0; i < TURNS; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		if (!uv_loop_alive(&loop))
			return;
		if (!is_readable(uv_backend_fd(&loop)) && uv_backend_timeout(&loop) != 0)
			return;
	}
	fuzz_check(false); /* it spins */
}

static void read_request(void)
{
	char buf[4096];

	while (node >= 0 && recv(node, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		continue;
}

/* The part in pieces of `step` bytes, 0: at once. */
static void say(const char *part, size_t len, size_t step)
{
	size_t pieces = step ? len / step + 1 : 1;

	if (pieces > 64)
		step = len / 64 + 1;
	while (len && node >= 0 && !now.answers) {
		size_t n = step ? MIN(step, len) : len;

		sockets_say(node, part, n);
		part += n;
		len -= n;
		settle();
	}
}

static const char *const methods[] = {"GET", "HEAD", "POST"};

/* The byte: method, pieces, what becomes of the connection, whether it is the last. */
static void exchange(uint8_t how)
{
	struct http_spec spec = {.url = "http://127.0.0.1:54321/3/Cloud?skip_ticks=true",
		.method = methods[(how & 3) % 3],
		.timeout_ms = 60000,
		.max_body = MAX_BODY};
	size_t len;
	_cleanup_free_ char *part = fuzz_part(&input, &len);
	struct http_request *request;
	unsigned before = n_connections;

	now.answers = 0;
	now.cancel = (how & 0xe0) == 0xe0;
	fuzz_check(http_start(http, &spec, on_answer, &now, &request) == 0);
	settle();
	read_request();
	say(part, len, (how >> 2) & 7);
	if (!now.answers && (how & 0x60) == 0x20) {
		http_cancel(request);
		return;
	}
	for (int i = 0; i < 3 && !now.answers && http; i++) {
		/* A GET may be sent again on a new connection when the kept one was dead. */
		if (node >= 0)
			shutdown(node, SHUT_WR);
		settle();
		read_request();
	}
	fuzz_check(now.answers == 1);
	fuzz_check(n_connections - before <= (streq(spec.method, "POST") ? 1 : 2));
	if (how & 0x80)
		closep(&node), node = -1;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	setenv("http_proxy", "http://192.0.2.1:3128", 1);
	setenv("ALL_PROXY", "socks5://192.0.2.1:1080", 1);
	fuzz_check(uv_loop_init(&loop) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = (struct fuzz_input){data, size};
	sockets_serve(on_connection);
	fuzz_check(http_new(&loop, &http, NULL) == 0);
	for (int i = 0; i < 3 && http && (i == 0 || input.n); i++)
		exchange(fuzz_byte(&input));
	http_free(TAKE_PTR(http));
	uv_run(&loop, UV_RUN_DEFAULT);
	closep(&node);
	node = -1;
	sockets_serve(NULL);
	return 0;
}

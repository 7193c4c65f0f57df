/* A hostile node: raw bytes as answers, read by drv/http.c and libcurl, in pieces as an input wants
 * them. Each request is answered once, in the bounds that were asked for; nothing but the node is
 * ever connected to, whatever a redirect or the environment says. An input that begins with 0xfe
 * has a byte then that says what else is wrong: who answers, whether anybody does, how the time
 * goes. */
#include "fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include "drv/http.h"
#include "drv/who.h"
#include "settle.h"
#include "sockets.h"
#include "waits.h"

#define PORT       54321
#define MAX_BODY   3000
#define TIMEOUT_MS 60000

/* Of that byte. */
#define WORLD_STRANGER 0x01 /* another user's process answers */
#define WORLD_UNKNOWN  0x02 /* whose it is is not known */
#define WORLD_NO_DIAG  0x04 /* for the kernel tells nothing at all */
#define WORLD_STALLS   0x08 /* no end comes: time passes */
#define WORLD_HELD_UP  0x10 /* and we were stopped meanwhile */
#define WORLD_NOBODY   0x20 /* nobody listens */
#define WORLD_SHORTAGE 0x40 /* there is no socket to be had */
#define WORLD_PAIR     0x80 /* another request is on its way, which is cancelled */

static uv_loop_t loop;
static uint8_t world;
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
	(void)sock;
	w->diag_works = !(world & WORLD_NO_DIAG);
	return world & WORLD_UNKNOWN ? UID_UNKNOWN : geteuid() + (world & WORLD_STRANGER);
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
	node = world & WORLD_NOBODY ? -1 : fd;
	n_connections++;
	if (node < 0)
		close(fd);
	return node >= 0;
}

static void on_answer(const struct http_response *rsp, void *arg)
{
	fuzz_check(arg == &now);
	now.answers++;
	fuzz_check(rsp->body && strlen(rsp->body) <= rsp->body_len);
	fuzz_check(rsp->body_len <= MAX_BODY && !rsp->body[rsp->body_len]);
	fuzz_check((rsp->result == HTTP_OK) == !rsp->error);
	fuzz_check(rsp->result != HTTP_NOT_ASKED || (world & WORLD_SHORTAGE && rsp->own_errno));
	fuzz_check(rsp->result != HTTP_TIMEOUT || world & WORLD_STALLS);
	fuzz_check(rsp->result != HTTP_REFUSED || world & WORLD_NOBODY);
	/* Nobody but us is believed. */
	fuzz_check(rsp->result != HTTP_OK || !(world & WORLD_STRANGER) || world & WORLD_UNKNOWN);
	fuzz_check(rsp->result != HTTP_OK || (rsp->status >= 100 && rsp->status <= 999));
	if (now.cancel)
		http_free(TAKE_PTR(http));
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
		settle(&loop);
	}
}

static const char *const methods[] = {"GET", "HEAD", "POST"};

/* The byte: method, pieces, what becomes of the connection, whether it is the last. */
static void exchange(uint8_t how)
{
	struct http_spec spec = {.url = "http://127.0.0.1:54321/3/Cloud?skip_ticks=true",
		.method = methods[(how & 3) % 3],
		.timeout_ms = TIMEOUT_MS,
		.max_body = MAX_BODY};
	size_t len;
	_cleanup_free_ char *part = fuzz_part(&input, &len);
	struct http_request *request, *other = NULL;
	unsigned before = n_connections;

	now.answers = 0;
	now.cancel = (how & 0xe0) == 0xe0;
	fuzz_check(http_start(http, &spec, on_answer, &now, &request) == 0);
	if (world & WORLD_PAIR)
		fuzz_check(http_start(http, &spec, on_answer, NULL, &other) == 0);
	http_cancel(other);
	settle(&loop);
	read_request();
	say(part, len, (how >> 2) & 7);
	if (!now.answers && (how & 0x60) == 0x20) {
		http_cancel(request);
		return;
	}
	for (int i = 0; i < 3 && !now.answers && http && world & WORLD_STALLS; i++) {
		waits_pass(world & WORLD_HELD_UP ? 2 * TIMEOUT_MS : TIMEOUT_MS);
		settle(&loop);
	}
	for (int i = 0; i < 3 && !now.answers && http; i++) {
		/* A GET may be sent again on a new connection when the kept one was dead. */
		if (node >= 0)
			shutdown(node, SHUT_WR);
		settle(&loop);
		read_request();
	}
	fuzz_check(now.answers == 1);
	fuzz_check(n_connections - before <= (streq(spec.method, "POST") ? 1 : 2));
	if (how & 0x80)
		closep(&node), node = -1;
}

void fuzz_begin(void)
{
	setenv("http_proxy", "http://192.0.2.1:3128", 1);
	setenv("ALL_PROXY", "socks5://192.0.2.1:1080", 1);
	fuzz_check(uv_loop_init(&loop) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = (struct fuzz_input){data, size};
	world = 0;
	if (size && *data == 0xfe) {
		fuzz_byte(&input);
		world = fuzz_byte(&input);
	}
	waits_begin();
	sockets_serve(on_connection);
	sockets_fail(world & WORLD_SHORTAGE ? EMFILE : 0);
	fuzz_check(http_new(&loop, &http, NULL) == 0);
	for (int i = 0; i < 3 && http && (i == 0 || input.n); i++)
		exchange(fuzz_byte(&input));
	http_free(TAKE_PTR(http));
	uv_run(&loop, UV_RUN_DEFAULT);
	closep(&node);
	node = -1;
	sockets_fail(0);
	sockets_serve(NULL);
	waits_end();
	return 0;
}

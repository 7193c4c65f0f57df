#include "api/acceptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "base/log.h"
#include "core/trouble.h"

#define TICK_MS      1000
#define PAUSE_MS     100
#define MAX_PATIENCE 30 /* ticks between two attempts to make the socket anew */
#define MAX_AT_ONCE  64 /* connections in a turn of the loop */

static void refill(struct acceptor *a)
{
	for (size_t i = 0; i < ACCEPTOR_RESERVE; i++)
		if (a->reserve[i] < 0)
			a->reserve[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static bool is_full(const struct acceptor *a)
{
	for (size_t i = 0; i < ACCEPTOR_RESERVE; i++)
		if (a->reserve[i] < 0)
			return false;
	return true;
}

/* Gives up one of the reserve, so that the next call that needs a descriptor finds one. */
static bool use_reserve(struct acceptor *a)
{
	for (size_t i = 0; i < ACCEPTOR_RESERVE; i++) {
		if (a->reserve[i] < 0)
			continue;
		close(TAKE_FD(a->reserve[i]));
		return true;
	}
	return false;
}

static void on_poll(uv_poll_t *p, int status, int events);
static void on_tick(uv_timer_t *t);

/* What waits in the backlog is taken later; until then the listening socket would be readable in
 * each turn of the loop. */
static void pause_accepting(struct acceptor *a)
{
	a->paused = true;
	uv_poll_stop(a->poll);
	uv_timer_start(a->tick, on_tick, PAUSE_MS, TICK_MS);
}

static void say_shortage(struct acceptor *a, int error)
{
	_cleanup_free_ char *sentence =
		xasprintf("cannot take connections: %s%s", strerror(error), trouble_advice(-error));

	trouble_set(a->fleet, TROUBLE_SOCKET, NULL, sentence);
}

static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
}

/* False: no more now. */
static bool take_one(struct acceptor *a)
{
	int fd = accept4(a->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), error = errno;

	if (fd < 0 && is_shortage(error)) {
		say_shortage(a, error);
		if (use_reserve(a))
			fd = accept4(a->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0 && is_shortage(errno))
			pause_accepting(a);
	}
	if (fd >= 0)
		a->taken(fd, a->arg);
	return fd >= 0 || error == EINTR || error == ECONNABORTED;
}

static void on_poll(uv_poll_t *p, int status _unused_, int events _unused_)
{
	struct acceptor *a = p->data;

	for (int i = 0; i < MAX_AT_ONCE && take_one(a); i++)
		continue;
}

/* ---- the socket in the file system ---- */

static void on_closed(uv_handle_t *h)
{
	free(h);
}

/* Takes `fd` over in any case. */
static int watch(struct acceptor *a, int fd)
{
	uv_poll_t *poll = xcalloc(1, sizeof(*poll));
	int r = uv_poll_init(a->loop, poll, fd);

	if (r < 0) {
		free(poll);
		close(fd);
		return r;
	}
	poll->data = a;
	a->fd = fd;
	a->poll = poll;
	return uv_poll_start(poll, UV_READABLE, on_poll);
}

static void unwatch(struct acceptor *a)
{
	uv_poll_stop(a->poll);
	uv_close((uv_handle_t *)TAKE_PTR(a->poll), on_closed);
	close(TAKE_FD(a->fd));
}

/* 0, or a negative errno and why not. */
static int make_anew(struct acceptor *a, struct err *e)
{
	struct listener fresh = {0};
	int fd = -1, r = listener_open(&fresh, a->listener.path, false, &fd, e);

	if (r < 0)
		return r;
	for (int i = 0; i < MAX_AT_ONCE && take_one(a); i++) /* who came by the old one */
		continue;
	unwatch(a);
	listener_close(&a->listener);
	a->listener = fresh;
	r = watch(a, fd);
	a->paused = false;
	return r < 0 ? err_set_errno(e, r, "cannot watch %s", a->listener.path) : 0;
}

static void look_after_socket(struct acceptor *a)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (listener_is_there(&a->listener)) {
		a->ticks = a->patience = 0;
		if (is_full(a))
			trouble_clear(a->fleet, TROUBLE_SOCKET, NULL);
		return;
	}
	if (a->ticks && --a->ticks)
		return;
	if (make_anew(a, &e) == 0) {
		log_warning("somebody has removed or replaced the control socket %s; it is made "
			    "anew",
			a->listener.path);
		return;
	}
	a->patience = MIN(MAX(2 * a->patience, 1u), (unsigned)MAX_PATIENCE);
	a->ticks = a->patience;
	err_wrap(&e, "somebody has removed or replaced it, and it cannot be made anew");
	trouble_set(a->fleet, TROUBLE_SOCKET, NULL, err_msg(&e));
}

static void on_tick(uv_timer_t *t)
{
	struct acceptor *a = t->data;

	refill(a);
	if (a->paused) {
		a->paused = false;
		uv_poll_start(a->poll, UV_READABLE, on_poll);
		uv_timer_start(a->tick, on_tick, TICK_MS, TICK_MS);
	}
	look_after_socket(a);
}

/* ---- beginning and end ---- */

int acceptor_open(struct acceptor *a, uv_loop_t *loop, struct fleet *fleet, const char *path,
	void (*taken)(int fd, void *arg), void *arg, struct err *e)
{
	int fd = -1, r;

	*a = (struct acceptor){.loop = loop, .fleet = fleet, .fd = -1, .taken = taken, .arg = arg};
	for (size_t i = 0; i < ACCEPTOR_RESERVE; i++)
		a->reserve[i] = -1;
	fd = listener_take_over(&a->listener, path);
	r = fd >= 0 ? 0 : listener_open(&a->listener, path, true, &fd, e);
	if (r < 0)
		return r;
	r = watch(a, fd);
	if (r < 0) {
		listener_close(&a->listener);
		return err_set_errno(e, r, "cannot watch the control socket %s", path);
	}
	refill(a);
	a->tick = xcalloc(1, sizeof(*a->tick));
	uv_timer_init(loop, a->tick);
	a->tick->data = a;
	uv_timer_start(a->tick, on_tick, TICK_MS, TICK_MS);
	return 0;
}

void acceptor_hand_over(const struct acceptor *a)
{
	listener_hand_over(&a->listener, a->fd);
}

void acceptor_close(struct acceptor *a)
{
	unwatch(a);
	listener_close(&a->listener);
	uv_timer_stop(a->tick);
	uv_close((uv_handle_t *)TAKE_PTR(a->tick), on_closed);
	while (use_reserve(a))
		continue;
}

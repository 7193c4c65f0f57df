#include "drv/gate_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"

struct gate_link {
	uv_poll_t poll;
	int fd;
	bool closed;
	bool wants_room;
	gate_link_cb cb;
	gate_link_room_cb room;
	void *arg;
};

/* State directories may have long names: through the directory's descriptor any fits. */
static int make_address(const char *path, struct sockaddr_un *sa, int *dir_fd)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *dir = xstrndup(path, slash ? (size_t)(slash - path) : 0);

	*dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (*dir_fd < 0)
		return -errno;
	*sa = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(sa->sun_path, sizeof(sa->sun_path), "/proc/self/fd/%d/%s", *dir_fd, slash + 1);
	return 0;
}

int gate_link_listen(const char *path, struct err *e)
{
	_cleanup_close_ int fd = -1, dir_fd = -1;
	struct sockaddr_un sa;
	mode_t old;
	int r = make_address(path, &sa, &dir_fd);

	if (r < 0)
		return err_set_errno(e, r, "cannot make the gate's socket %s", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot remove %s", path);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set_errno(e, -errno, "cannot make a socket");
	old = umask(0177);
	r = bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, 16) < 0 ? -errno : 0;
	umask(old);
	if (r < 0)
		return err_set_errno(e, r, "cannot make the gate's socket %s", path);
	return TAKE_FD(fd);
}

int gate_link_open(uv_loop_t *loop, const char *path, struct gate_link **out)
{
	_cleanup_close_ int fd = -1, dir_fd = -1;
	struct sockaddr_un sa;
	struct gate_link *l;
	int r = make_address(path, &sa, &dir_fd);

	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -errno;
	l = xcalloc(1, sizeof(*l));
	r = uv_poll_init(loop, &l->poll, fd);
	if (r < 0) {
		free(l);
		return r;
	}
	l->poll.data = l;
	l->fd = TAKE_FD(fd);
	*out = l;
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct gate_link *l = h->data;

	closep(&l->fd);
	free(l);
}

void gate_link_close(struct gate_link *l)
{
	if (!l || l->closed)
		return;
	l->closed = true;
	uv_close((uv_handle_t *)&l->poll, on_closed);
}

int gate_link_wait(struct gate_link *l, unsigned timeout_ms, struct gate_message *out)
{
	uint64_t until = clock_monotonic_ms() + timeout_ms;
	int r;

	while ((r = gate_receive(l->fd, out)) == -EAGAIN) {
		uint64_t now = clock_monotonic_ms();
		struct pollfd p = {.fd = l->fd, .events = POLLIN};

		if (now >= until)
			return -ETIMEDOUT;
		poll(&p, 1, (int)(until - now));
	}
	return r;
}

static void watch(struct gate_link *l);

static void on_poll(uv_poll_t *p, int status, int events)
{
	struct gate_link *l = p->data;
	int r = status < 0 ? status : -EAGAIN;

	if (events & UV_WRITABLE) {
		l->wants_room = false;
		watch(l);
		l->room(l->arg);
	}
	/* A few at a time: there may be clouds to be looked after. */
	for (int i = 0; i < 32 && !l->closed && (events & UV_READABLE || status < 0); i++) {
		struct gate_message m;

		r = gate_receive(l->fd, &m);
		if (r == -EBADMSG)
			continue;
		if (r <= 0)
			break;
		l->cb(&m, l->arg);
		gate_message_clear(&m);
	}
	if (r <= 0 && r != -EAGAIN && r != -EBADMSG && !l->closed) {
		uv_poll_stop(p);
		l->cb(NULL, l->arg);
	}
}

static void watch(struct gate_link *l)
{
	uv_poll_start(&l->poll, UV_READABLE | (l->wants_room ? UV_WRITABLE : 0), on_poll);
}

void gate_link_start(struct gate_link *l, gate_link_cb cb, gate_link_room_cb room, void *arg)
{
	l->cb = cb;
	l->room = room;
	l->arg = arg;
	watch(l);
}

int gate_link_send(struct gate_link *l, const json_t *body, const int *fds, unsigned n_fds)
{
	int r = gate_send(l->fd, body, fds, n_fds);

	if (r == -EAGAIN && l->cb) {
		l->wants_room = true;
		watch(l);
	}
	return r;
}

#include "drv/gate_wire.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

void gate_message_clear(struct gate_message *m)
{
	json_decref(m->body);
	while (m->n_fds)
		closep(&m->fds[--m->n_fds]);
	*m = GATE_MESSAGE_NULL;
}

union fd_room {
	struct cmsghdr align;
	char buf[CMSG_SPACE(GATE_MAX_FDS * sizeof(int))];
};

int gate_send(int sock, const json_t *body, const int *fds, unsigned n_fds)
{
	_cleanup_free_ char *text = json_dumps(body, JSON_COMPACT);
	struct iovec iov = {.iov_base = text, .iov_len = text ? strlen(text) : 0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	union fd_room room = {.buf = {0}};
	ssize_t n;

	if (!text || iov.iov_len > GATE_MAX_MESSAGE || n_fds > GATE_MAX_FDS)
		return -EMSGSIZE;
	if (n_fds) {
		struct cmsghdr *c;

		m.msg_control = room.buf;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
	}
	do
		n = sendmsg(sock, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

static void take_fds(struct msghdr *m, struct gate_message *out)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (unsigned i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (out->n_fds < GATE_MAX_FDS)
				out->fds[out->n_fds++] = fd;
			else
				close(fd);
		}
	}
}

int gate_receive(int sock, struct gate_message *out)
{
	_cleanup_free_ char *text = xmalloc(GATE_MAX_MESSAGE);
	struct iovec iov = {.iov_base = text, .iov_len = GATE_MAX_MESSAGE};
	union fd_room room;
	struct msghdr m = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf)};
	ssize_t n;

	*out = GATE_MESSAGE_NULL;
	do
		n = recvmsg(sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	take_fds(&m, out);
	if (n == 0) { /* the end, or an empty packet, which may have descriptors nevertheless */
		gate_message_clear(out);
		return 0;
	}
	if (!(m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		out->body = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_string(json_object_get(out->body, "op"))) {
		gate_message_clear(out);
		return -EBADMSG;
	}
	return 1;
}

struct gate_counters *gate_counters_map(int fd)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return NULL;
	if (st.st_size < (off_t)sizeof(struct gate_counters) &&
		ftruncate(fd, sizeof(struct gate_counters)) < 0)
		return NULL;
	p = mmap(NULL, sizeof(struct gate_counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

void gate_counters_unmap(struct gate_counters *c)
{
	if (c)
		munmap(c, sizeof(*c));
}

/* TCP ports: drv/ports.h, and the calls on sockets that core/door.c makes itself. The daemon holds
 * ports (bound, not listening: that keeps out everybody but servers with SO_REUSEADDR), JVMs and
 * strangers listen, outgoing connections take what nobody holds. */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "drv/activation.h"
#include "drv/ports.h"

#define FIRST_PORT 54000
#define N_PORTS    1024

static struct vport ports[N_PORTS + 1];

/* By the number of a port: what the image that follows gets. */
static bool handed[N_PORTS + 1];

void net_new(void)
{
	memset(ports, 0, sizeof(ports));
	memset(handed, 0, sizeof(handed));
	for (unsigned i = 0; i < N_PORTS; i++)
		ports[i].port = (uint16_t)(FIRST_PORT + i);
}

bool port_is_held(uint16_t port)
{
	return vport(port)->held;
}

unsigned ports_held(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < N_PORTS; i++)
		n += ports[i].held || ports[i].claimed || ports[i].door;
	return n;
}

struct vport *vport(uint16_t port)
{
	if (port < FIRST_PORT || port >= FIRST_PORT + N_PORTS) {
		violated("ports", "somebody asks for port %u", port);
		return &ports[N_PORTS];
	}
	return &ports[port - FIRST_PORT];
}

/* As a JVM does it, with SO_REUSEADDR. */
bool port_listen(struct vproc *p, uint16_t port)
{
	struct vport *v = vport(port);

	if (v->listener || v->connection || (v->door && !v->door->released))
		return false;
	v->listener = p;
	return true;
}

void port_leave(const struct vproc *p)
{
	for (unsigned i = 0; i < N_PORTS; i++)
		if (ports[i].listener == p)
			ports[i].listener = NULL;
}

/* ---- drv/ports.h ---- */

/* A process; 0: none. */
static pid_t letting_go;

/* What is left of connections (TIME_WAIT) is no hindrance: drv/ports binds over it. So it does over
 * a door that the gate has not closed yet. */
static bool can_bind(const struct vport *v)
{
	return !v->listener && !v->connection && (!v->door || (v->door->released && letting_go));
}

static int hold_both(uint16_t api, uint16_t *taken)
{
	for (uint16_t i = 0; i < 2; i++) {
		struct vport *v = vport((uint16_t)(api + i));

		if (!v->held && !can_bind(v)) {
			if (taken)
				*taken = v->port;
			return -EADDRINUSE;
		}
	}
	vport(api)->held = vport((uint16_t)(api + 1))->held = true;
	return 0;
}

static bool claimed(uint16_t api)
{
	return vport(api)->claimed || vport((uint16_t)(api + 1))->claimed;
}

static void claim(uint16_t api, struct port_pair *out, bool on)
{
	*out = PORT_PAIR_NULL;
	out->api = on ? api : 0;
	vport(api)->claimed = vport((uint16_t)(api + 1))->claimed = on;
}

int port_pair_hold(const char *api_addr, const char *internal_addr, uint16_t api,
	struct port_pair *out, uint16_t *taken)
{
	uint16_t ignored;
	int r, err = fault(FAULT_BIND);

	(void)api_addr, (void)internal_addr;
	taken = taken ? taken : &ignored;
	*taken = api;
	if (err)
		return -err;
	if (!effect(20))
		return -EMFILE;
	if (claimed(api))
		return -EADDRINUSE;
	r = hold_both(api, taken);
	if (r == 0)
		claim(api, out, true);
	return r;
}

int port_pair_claim(
	const char *api_addr, const char *internal_addr, uint16_t api, struct port_pair *out)
{
	(void)api_addr, (void)internal_addr;
	if (!effect(20))
		return -EMFILE;
	if (claimed(api))
		return -EADDRINUSE;
	claim(api, out, true);
	return 0;
}

int port_pair_complete(
	const char *api_addr, const char *internal_addr, struct port_pair *p, uint16_t *taken)
{
	(void)api_addr, (void)internal_addr;
	return effect(20) ? hold_both(p->api, taken) : -EMFILE;
}

void port_pair_hand_over(const struct port_pair *p)
{
	const struct vport *v = vport(p->api);

	handed[v - ports] = v->held;
}

/* An image that follows has what was handed over; nobody else anything. */
void ports_daemon_gone(bool replaced)
{
	for (unsigned i = 0; i < N_PORTS; i++)
		ports[i].claimed = ports[i].held = false;
	for (unsigned i = 0; i + 1 < N_PORTS; i++) {
		handed[i] &= replaced;
		if (handed[i])
			ports[i].held = ports[i + 1].held = true;
	}
}

bool port_pair_take_over(uint16_t api, struct port_pair *out)
{
	struct vport *v = vport(api);

	if (!handed[v - ports] || w.ghost)
		return false;
	handed[v - ports] = false;
	claim(api, out, true);
	v->held = vport((uint16_t)(api + 1))->held = true;
	return true;
}

void port_pair_release(struct port_pair *p)
{
	if (p->api && !w.ghost) {
		vport(p->api)->held = vport((uint16_t)(p->api + 1))->held = false;
		claim(p->api, p, false);
	}
	*p = PORT_PAIR_NULL;
}

bool port_is_claimed(uint16_t port)
{
	const struct vport *v = vport(port);

	return v->claimed || (v->door && !v->door->released);
}

int door_port_bind(bool everywhere, uint16_t port, struct door_port *out)
{
	struct vport *v = vport(port);
	struct inode *i;
	int err = fault(FAULT_BIND);

	if (err)
		return -err;
	if (!effect(20))
		return -EMFILE;
	if (v->claimed || v->held || !can_bind(v))
		return -EADDRINUSE;
	i = inode_new(I_TCP);
	i->door = v->door = xcalloc(1, sizeof(*i->door));
	*i->door = (struct vdoor){.port = port, .everywhere = everywhere, .inode = i};
	*out = (struct door_port){.port = port, .claim = -1, .fds = {fd_new(i, O_RDWR), -1}};
	inode_unref(i);
	return 0;
}

int door_port_claim(struct door_port *d)
{
	(void)d;
	return 0;
}

void door_port_release(struct door_port *d)
{
	const struct ofile *f = d->port ? fd_file(d->fds[0]) : NULL;

	if (f && f->inode->door && !w.ghost)
		f->inode->door->released = true;
	if (d->port && d->fds[0] >= 0)
		close(d->fds[0]);
	*d = DOOR_PORT_NULL;
}

char *port_holder(uint16_t port)
{
	const struct vport *v = vport(port);

	look(500);
	return v->listener || v->connection ? xstrdup("pid 1 (thief)") : NULL;
}

char *port_holder_sentence(uint16_t port)
{
	return xasprintf("port %u is taken", port);
}

bool port_has_only_remains(uint16_t port)
{
	(void)port;
	return false;
}

void port_is_let_go_by(pid_t pid)
{
	letting_go = pid;
}

bool port_is_open_to_jvm(const char *address, uint16_t port)
{
	const struct vport *v = vport(port);

	(void)address;
	look(5);
	return !v->listener && !v->connection && (!v->door || v->door->released);
}

bool port_is_ephemeral(uint16_t port)
{
	(void)port;
	return true;
}

/* ---- drv/activation.h: nothing is passed by systemd ---- */

int activation_listener(uint16_t port, bool v6)
{
	(void)port, (void)v6;
	return -1;
}

bool activation_listens(uint16_t port)
{
	(void)port;
	return false;
}

/* ---- a door's sockets ---- */

static struct vdoor *door_of(int fd)
{
	struct ofile *f = fd_file(fd);

	return f ? f->inode->door : NULL;
}

static int bad_fd(void)
{
	errno = EBADF;
	return -1;
}

int __wrap_listen(int fd, int backlog);
int __wrap_listen(int fd, int backlog)
{
	struct vdoor *d = door_of(fd);

	(void)backlog;
	if (!d)
		return bad_fd();
	if (effect(5))
		d->listens = true;
	return 0;
}

int __wrap_shutdown(int fd, int how);
int __wrap_shutdown(int fd, int how)
{
	struct vdoor *d = door_of(fd);

	(void)how;
	if (!d)
		return bad_fd();
	if (effect(5))
		d->listens = false;
	return 0;
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	(void)level, (void)name, (void)value, (void)len;
	return door_of(fd) ? 0 : bad_fd();
}

int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	(void)level, (void)name, (void)len;
	*(int *)value = AF_INET;
	return door_of(fd) ? 0 : bad_fd();
}

int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
int __wrap_getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	const struct vdoor *d = door_of(fd);
	struct sockaddr_in a = {.sin_family = AF_INET};

	if (!d)
		return bad_fd();
	a.sin_port = htons(d->port);
	a.sin_addr.s_addr = htonl(d->everywhere ? INADDR_ANY : INADDR_LOOPBACK);
	memcpy(addr, &a, MIN((size_t)*len, sizeof(a)));
	return 0;
}

/* Proves what a hold keeps out and what it lets in, and that the holders of ports are found. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "drv/ports.h"
#include "drv_test.h"

/* Of a family, with or without SO_REUSEADDR; listening or not. The descriptor or -errno. */
static int bind_socket(const char *addr, uint16_t port, bool reuse, bool listens)
{
	struct sockaddr_storage ss = {0};
	struct sockaddr_in *in = (void *)&ss;
	struct sockaddr_in6 *in6 = (void *)&ss;
	_cleanup_close_ int fd = -1;
	int on = reuse, off = 0;
	socklen_t len;

	if (inet_pton(AF_INET, addr, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		len = sizeof(*in);
	} else {
		assert_int_equal(inet_pton(AF_INET6, addr, &in6->sin6_addr), 1);
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		len = sizeof(*in6);
	}
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (ss.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (void *)&ss, len) < 0 || (listens && listen(fd, 512) < 0))
		return -errno;
	return TAKE_FD(fd);
}

static uint16_t local_port(int fd)
{
	struct sockaddr_in6 a = {0};
	socklen_t len = sizeof(a);

	assert_int_equal(getsockname(fd, (void *)&a, &len), 0);
	return ntohs(a.sin6_port);
}

/* Holds a pair that was free; retries, for other programs use ports, too. */
static void hold_free_pair(const char *addr, struct port_pair *p)
{
	for (int i = 0; i < 1000; i++) {
		int fd = bind_socket(addr, 0, false, false), r;
		uint16_t port;

		assert_true(fd >= 0);
		port = local_port(fd);
		close(fd);
		r = port_pair_hold(addr, addr, port, p, NULL);
		if (r == 0)
			return;
		assert_true(r == -EADDRINUSE || r == -EINVAL);
	}
	fail_msg("no two free ports");
}

static bool have_ipv6(void)
{
	int fd = bind_socket("::1", 0, false, false);

	closep(&fd);
	return fd >= 0;
}

/* Another fleet is refused, is told which of the two ports it is, and gets neither. */
static void check_second_holder(const char *addr)
{
	struct port_pair a, b;
	uint16_t taken = 0;
	unsigned fds;

	hold_free_pair(addr, &a);
	fds = count_open_fds();
	assert_true(port_is_claimed(a.api) && port_is_claimed((uint16_t)(a.api + 1)));
	assert_int_equal(port_pair_hold(addr, addr, a.api, &b, &taken), -EADDRINUSE);
	assert_int_equal(taken, a.api);
	assert_int_equal(b.api, 0);
	/* Overlapping by one: its internal port is our API port. */
	if (port_pair_hold(addr, addr, (uint16_t)(a.api - 1), &b, &taken) == -EADDRINUSE)
		assert_true(taken == a.api || taken == a.api - 1);
	else
		fail();
	assert_int_equal(count_open_fds(), fds);
	assert_true(port_is_claimed(a.api) && port_is_claimed((uint16_t)(a.api + 1)));
	port_pair_release(&a);
	assert_int_equal(a.api, 0);
	assert_int_equal(count_open_fds(), fds - 4);
	port_pair_release(&a); /* twice is fine */
}

/* What another process has claimed is not ours, and never counts as such. */
static void test_anothers_claim(_unused_ void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct port_pair p, other;
	uint16_t taken = 0, port;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), n;

	hold_free_pair("127.0.0.1", &p);
	port = p.api;
	port_pair_release(&p);
	assert_false(port_is_claimed(port));
	n = snprintf(a.sun_path + 1, sizeof(a.sun_path) - 1, "h2ofleet/port/%u", port + 1u);
	assert_int_equal(
		bind(fd, (struct sockaddr *)&a,
			(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n)),
		0);
	assert_int_equal(
		port_pair_hold("127.0.0.1", "127.0.0.1", port, &other, &taken), -EADDRINUSE);
	assert_int_equal(taken, port + 1);
	assert_false(port_is_claimed(port) || port_is_claimed((uint16_t)(port + 1)));
	close(fd);
	assert_int_equal(port_pair_hold("127.0.0.1", "127.0.0.1", port, &p, NULL), 0);
	port_pair_release(&p);
}

static void test_second_holder_is_refused(_unused_ void **state)
{
	check_second_holder("127.0.0.1");
	check_second_holder("0.0.0.0");
	if (have_ipv6()) {
		check_second_holder("::1");
		check_second_holder("::");
	}
}

/* A node (SO_REUSEADDR, as every JVM) binds and listens on both, a plain server cannot. */
static void check_node_may_listen(const char *addr)
{
	struct port_pair p;
	int api, internal;

	hold_free_pair(addr, &p);
	assert_int_equal(bind_socket(addr, p.api, false, true), -EADDRINUSE);
	api = bind_socket(addr, p.api, true, true);
	internal = bind_socket(addr, (uint16_t)(p.api + 1), true, true);
	assert_true(api >= 0);
	assert_true(internal >= 0);
	/* While it listens nobody else does. */
	assert_int_equal(bind_socket(addr, p.api, true, true), -EADDRINUSE);
	close(api);
	close(internal);
	/* And the next generation again, on the same holds. */
	api = bind_socket(addr, p.api, true, true);
	assert_true(api >= 0);
	close(api);
	port_pair_release(&p);
}

static void test_node_may_listen(_unused_ void **state)
{
	check_node_may_listen("127.0.0.1");
	check_node_may_listen("0.0.0.0");
	if (have_ipv6()) {
		check_node_may_listen("::1");
		check_node_may_listen("::");
	}
}

/* A dual-stack socket on [::], as a JVM opens without an address, over holds of IPv4. */
static void test_dual_stack_node(_unused_ void **state)
{
	static const char *const held[] = {"127.0.0.1", "0.0.0.0", "::", "::1"};

	if (!have_ipv6())
		return;
	for (size_t i = 0; i < ARRAY_SIZE(held); i++) {
		struct port_pair p;
		int fd;

		hold_free_pair(held[i], &p);
		assert_int_equal(bind_socket("::", p.api, false, false), -EADDRINUSE);
		fd = bind_socket("::", p.api, true, true);
		assert_true(fd >= 0);
		close(fd);
		port_pair_release(&p);
	}
}

/* Held "::" keeps plain IPv4 binds out, too. */
static void test_wildcard_holds_ipv4(_unused_ void **state)
{
	struct port_pair p;

	if (!have_ipv6())
		return;
	hold_free_pair("::", &p);
	assert_int_equal(bind_socket("127.0.0.1", p.api, false, false), -EADDRINUSE);
	assert_int_equal(bind_socket("0.0.0.0", p.api, false, false), -EADDRINUSE);
	port_pair_release(&p);
}

/* A port that was just served: the server closed first, so TIME_WAIT stays on it. */
static void leave_time_wait(uint16_t port)
{
	int listener = bind_socket("127.0.0.1", port, true, true), client, server;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	char c;

	assert_true(listener >= 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&a, sizeof(a)), 0);
	server = accept(listener, NULL, NULL);
	close(server);
	assert_int_equal(read(client, &c, 1), 0);
	close(client);
	close(listener);
}

/* A cloud that was stopped a moment ago gets its ports back, although connections to it are still
 * in TIME_WAIT, and they are exclusive then as ever. */
static void test_hold_over_time_wait(_unused_ void **state)
{
	struct port_pair p, other;
	uint16_t port;

	hold_free_pair("127.0.0.1", &p);
	port = p.api;
	port_pair_release(&p);
	leave_time_wait(port);
	assert_int_equal(bind_socket("127.0.0.1", port, false, false), -EADDRINUSE);
	assert_true(port_has_only_remains(port));
	assert_int_equal(port_pair_hold("127.0.0.1", "127.0.0.1", port, &p, NULL), 0);
	assert_int_equal(port_pair_hold("127.0.0.1", "127.0.0.1", port, &other, NULL), -EADDRINUSE);
	port_pair_release(&p);
}

static void test_bad_arguments(_unused_ void **state)
{
	struct port_pair p;

	assert_int_equal(port_pair_hold("localhost", "127.0.0.1", 54321, &p, NULL), -EINVAL);
	assert_int_equal(port_pair_hold("127.0.0.1", "nonsense", 54321, &p, NULL), -EINVAL);
	assert_int_equal(port_pair_hold("127.0.0.1", "127.0.0.1", 65535, &p, NULL), -EINVAL);
	assert_int_equal(port_pair_hold("127.0.0.1", "127.0.0.1", 0, &p, NULL), -EINVAL);
	/* TEST-NET-1 is no address of ours. */
	assert_int_equal(port_pair_hold("192.0.2.1", "127.0.0.1", 54321, &p, NULL), -EADDRNOTAVAIL);
	assert_int_equal(p.api, 0);
}

/* ---- in a network of its own, where the range of outgoing ports is four wide ---- */

static int write_text(const char *path, const char *text)
{
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

static int loopback_up(void)
{
	struct ifreq rq = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : ioctl(fd, SIOCSIFFLAGS, &rq);
}

#define IN_NAMESPACE(child)                                                                        \
	({                                                                                         \
		int st_;                                                                           \
		pid_t pid_ = fork();                                                               \
		if (pid_ == 0) {                                                                   \
			if (unshare(CLONE_NEWNET) < 0 &&                                           \
				unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)                         \
				_exit(77);                                                         \
			if (loopback_up() != 0)                                                    \
				_exit(77);                                                         \
			_exit(child());                                                            \
		}                                                                                  \
		assert_int_equal(waitpid(pid_, &st_, 0), pid_);                                    \
		assert_true(WIFEXITED(st_));                                                       \
		WEXITSTATUS(st_);                                                                  \
	})

/* How many ports between 40000 and 40003 are given out, to bind(0) and to connect(); -1 when one of
 * the first two is among them though these are held. */
static int given_out(bool by_connect, bool held)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(30000)};
	int fds[8], n = 0, bad = 0;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while (n < 8) {
		if (by_connect) {
			fds[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
			if (connect(fds[n], (void *)&to, sizeof(to)) < 0) {
				close(fds[n]);
				break;
			}
		} else {
			fds[n] = bind_socket("127.0.0.1", 0, false, false);
			if (fds[n] < 0)
				break;
		}
		bad |= held && local_port(fds[n]) < 40002;
		n++;
	}
	for (int i = 0; i < n; i++) {
		struct linger reset = {1, 0}; /* leaves no TIME_WAIT */

		setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		close(fds[i]);
	}
	return bad ? -1 : n;
}

/* 40000 to 40003 are for outgoing connections, two of them held. Exit codes say what was wrong. */
static int outgoing_child(void)
{
	struct port_pair p;

	if (write_text("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003") < 0)
		return 77;
	if (bind_socket("127.0.0.1", 30000, true, true) < 0)
		return 1;
	if (port_pair_hold("127.0.0.1", "127.0.0.1", 40000, &p, NULL) < 0)
		return 2;
	for (int i = 0; i < 20; i++) { /* the kernel begins at a random one */
		if (given_out(true, true) != 2)
			return 3;
		if (given_out(false, true) != 2)
			return 4;
	}
	port_pair_release(&p);
	/* The control: released, they are given out. */
	if (given_out(true, false) != 4)
		return 5;
	return given_out(false, false) == 4 ? 0 : 6;
}

static void test_outgoing_connections_keep_off(_unused_ void **state)
{
	int r = IN_NAMESPACE(outgoing_child);

	if (r == 77)
		print_message("not tested: no network namespace can be made here\n");
	else
		assert_int_equal(r, 0);
}

static int ephemeral_child(void)
{
	if (write_text("/proc/sys/net/ipv4/ip_local_port_range", "40000 50000") < 0)
		return 77;
	if (write_text("/proc/sys/net/ipv4/ip_local_reserved_ports", "41000,42000-42010,50000") < 0)
		return 77;
	if (port_is_ephemeral(39999) || !port_is_ephemeral(40000) || port_is_ephemeral(50001))
		return 1;
	if (port_is_ephemeral(41000) || !port_is_ephemeral(41001) || !port_is_ephemeral(40999))
		return 2;
	if (!port_is_ephemeral(41999) || port_is_ephemeral(42000) || port_is_ephemeral(42010) ||
		!port_is_ephemeral(42011) || port_is_ephemeral(50000))
		return 3;
	return 0;
}

static void test_ephemeral(_unused_ void **state)
{
	int r = IN_NAMESPACE(ephemeral_child);

	if (r == 77)
		print_message("not tested: no network namespace can be made here\n");
	else
		assert_int_equal(r, 0);
	assert_false(port_is_ephemeral(22));
}

/* ---- holders ---- */

/* A process that has a socket on a free port, until it is killed. */
static pid_t serve(const char *addr, bool listens, uint16_t *port)
{
	int fds[2];
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		int fd = bind_socket(addr, 0, false, listens);

		*port = fd < 0 ? 0 : local_port(fd);
		if (write(fds[1], port, sizeof(*port)) != sizeof(*port))
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(fds[0], port, sizeof(*port)), sizeof(*port));
	close(fds[0]);
	close(fds[1]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void check_listener(const char *addr)
{
	_cleanup_free_ char *who = NULL, *expected = NULL, *sentence = NULL;
	uint16_t port;
	pid_t pid = serve(addr, true, &port);

	assert_true(port);
	who = port_holder(port);
	sentence = port_holder_sentence(port);
	end(pid);
	expected = xasprintf("pid %d (", (int)pid);
	assert_non_null(who);
	if (!has_prefix(who, expected))
		fail_msg("%s", who);
	assert_non_null(strstr(sentence, expected));
}

static void test_listener_is_found(_unused_ void **state)
{
	check_listener("127.0.0.1");
	check_listener("0.0.0.0");
	if (have_ipv6()) {
		check_listener("::1");
		check_listener("::");
	}
}

static void test_nobody(_unused_ void **state)
{
	int fd = bind_socket("127.0.0.1", 0, false, false);
	uint16_t port = local_port(fd);
	_cleanup_free_ char *who = NULL, *sentence = NULL, *expected = NULL;

	close(fd);
	who = port_holder(port);
	sentence = port_holder_sentence(port);
	expected = xasprintf("port %u is taken, by whom is not known", port);
	assert_null(who);
	assert_string_equal(sentence, expected);
}

/* Another fleet's hold: only Linux 6.8 and later can tell. */
static void test_bound_socket_is_found(_unused_ void **state)
{
	_cleanup_free_ char *who = NULL, *expected = NULL;
	struct utsname u;
	int major = 0, minor = 0;
	uint16_t port;
	pid_t pid = serve("127.0.0.1", false, &port);

	who = port_holder(port);
	end(pid);
	uname(&u);
	assert_int_equal(sscanf(u.release, "%d.%d", &major, &minor), 2);
	expected = xasprintf("pid %d (", (int)pid);
	if (major * 100 + minor >= 608 && !who)
		print_message("not told of, though the kernel is new enough: no tcp_diag?\n");
	if (who && !has_prefix(who, expected))
		fail_msg("%s", who);
}

/* A connection of ours that has the port at our end; then what is left of it. */
static void test_connection_is_found(_unused_ void **state)
{
	int server = bind_socket("127.0.0.1", 0, true, true), client, accepted;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(local_port(server))};
	_cleanup_free_ char *who = NULL, *expected = NULL, *after = NULL;
	struct port_pair p;
	uint16_t port;
	char c;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (void *)&to, sizeof(to)), 0);
	accepted = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	port = local_port(client);
	who = port_holder(port);
	expected = xasprintf("pid %d (", (int)getpid());
	assert_non_null(who);
	assert_true(has_prefix(who, expected));
	/* The client closes first, so the TIME_WAIT is at its end. */
	close(client);
	assert_int_equal(read(accepted, &c, 1), 0);
	close(accepted);
	close(server);
	if (port < 65535 &&
		port_pair_hold("127.0.0.1", "127.0.0.1", port, &p, NULL) == -EADDRINUSE) {
		after = port_holder(port);
		if (after)
			assert_non_null(strstr(after, "remains of a connection"));
	}
}

/* ---- a port to listen on ---- */

static void bind_free_door(bool everywhere, struct door_port *d)
{
	for (int i = 0; i < 1000; i++) {
		int fd = bind_socket("127.0.0.1", 0, false, false), r;
		uint16_t port = local_port(fd);

		close(fd);
		r = door_port_bind(everywhere, port, d);
		if (r == 0) {
			assert_int_equal(d->port, port);
			return;
		}
		assert_int_equal(r, -EADDRINUSE);
	}
	fail_msg("no free port");
}

/* It can be listened on; until then, and then, nobody else gets the port, on either address: no
 * JVM, no other fleet, no second door. Once released, anybody does. */
static void test_door(void **state)
{
	struct door_port d, other;
	uint16_t port;

	(void)state;
	for (int everywhere = 0; everywhere < 2; everywhere++) {
		bind_free_door(everywhere, &d);
		port = d.port;
		assert_true(have_ipv6() == (d.fds[1] >= 0));
		assert_int_equal(door_port_bind(everywhere, port, &other), -EADDRINUSE);
		assert_int_equal(other.port, 0);
		assert_int_equal(bind_socket("127.0.0.1", port, false, false), -EADDRINUSE);
		assert_int_equal(listen(d.fds[0], 5), 0);
		assert_int_equal(bind_socket("127.0.0.1", port, true, true), -EADDRINUSE);
		if (have_ipv6()) {
			assert_int_equal(listen(d.fds[1], 5), 0);
			assert_int_equal(bind_socket("::1", port, true, true), -EADDRINUSE);
		}
		door_port_release(&d);
		assert_int_equal(door_port_bind(everywhere, port, &d), 0);
		door_port_release(&d);
	}
}

/* A listener that is shut down (a door that refuses) refuses connections, still keeps the port, and
 * listens again: by any copy of its descriptor, for daemon and gate have one each. */
static void test_door_refuses(void **state)
{
	_cleanup_close_ int copy = -1, client = -1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct door_port d;

	(void)state;
	bind_free_door(false, &d);
	a.sin_port = htons(d.port);
	copy = dup(d.fds[0]);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(listen(d.fds[0], 5), 0);
		client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(client, (void *)&a, sizeof(a)), 0);
		closep(&client);
		assert_int_equal(shutdown(copy, SHUT_RD), 0);
		client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(client, (void *)&a, sizeof(a)), -1);
		assert_int_equal(errno, ECONNREFUSED);
		closep(&client);
		client = -1;
		assert_int_equal(bind_socket("127.0.0.1", d.port, false, false), -EADDRINUSE);
	}
	door_port_release(&d);
}

/* All or nothing: where only the IPv6 side is taken, there is no door, and nothing of it is kept.
 */
static void test_door_half_taken(void **state)
{
	struct door_port d;
	uint16_t port;
	int fd;

	(void)state;
	if (!have_ipv6())
		skip();
	bind_free_door(false, &d);
	port = d.port;
	door_port_release(&d);
	fd = bind_socket("::1", port, false, true);
	assert_true(fd >= 0);
	assert_int_equal(door_port_bind(false, port, &d), -EADDRINUSE);
	assert_int_equal(d.fds[0], -1);
	assert_int_equal(d.claim, -1);
	close(fd);
	assert_int_equal(door_port_bind(false, port, &d), 0);
	door_port_release(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_anothers_claim),
		cmocka_unit_test(test_second_holder_is_refused),
		cmocka_unit_test(test_node_may_listen),
		cmocka_unit_test(test_dual_stack_node),
		cmocka_unit_test(test_wildcard_holds_ipv4),
		cmocka_unit_test(test_hold_over_time_wait),
		cmocka_unit_test(test_bad_arguments),
		cmocka_unit_test(test_outgoing_connections_keep_off),
		cmocka_unit_test(test_door),
		cmocka_unit_test(test_door_refuses),
		cmocka_unit_test(test_door_half_taken),
		cmocka_unit_test(test_ephemeral),
		cmocka_unit_test(test_listener_is_found),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_bound_socket_is_found),
		cmocka_unit_test(test_connection_is_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

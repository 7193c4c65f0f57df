/* Life of the process: boot, bind, ready, signals, exit. */
#include "fake.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include "base/clock.h"

/* Jetty asks for 128 too. */
#define BACKLOG 128

void node_exit(struct node *n, int code)
{
	journal_end(n, code);
	files_exit(n, code == 0 || n->g.shutting_down);
	_exit(code);
}

void node_die(struct node *n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	console_vlog(n, LVL_FATAL, "main", fmt, ap);
	va_end(ap);
	node_exit(n, 255);
}

void node_raise(struct node *n, int sig)
{
	struct rlimit none = {0, 0};
	sigset_t set;

	(void)n;
	setrlimit(RLIMIT_CORE, &none);
	signal(sig, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, sig);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	raise(sig);
	_exit(99); /* a signal that does not kill */
}

static int tcp_bind(struct in_addr ip, int64_t port)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = ip};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	/* As a JVM does; so held ports can be taken (facts, section 1). */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(fd, BACKLOG) < 0)
		return -1;
	return TAKE_FD(fd);
}

static int udp_bind(struct in_addr ip, int64_t port)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = ip};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	/* IP_RECVERR: refused datagrams come back with the address that they were for. */
	if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_RECVERR, &one, sizeof(one)) < 0 ||
		bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return -1;
	return TAKE_FD(fd);
}

static bool bind_pair(struct node *n, int64_t port)
{
	int64_t internal = port + n->h2o.port_offset;

	if (port > 65535 || internal > 65535)
		return false;
	n->internal_fd = tcp_bind(n->ip, internal);
	n->g.fd = udp_bind(n->ip, internal);
	n->api_fd = tcp_bind(n->web_ip, port);
	n->port = (uint16_t)port;
	n->internal_port = (uint16_t)internal;
	if (n->internal_fd >= 0 && n->g.fd >= 0 && n->api_fd >= 0)
		return true;
	closep(&n->internal_fd);
	closep(&n->g.fd);
	closep(&n->api_fd);
	n->internal_fd = n->g.fd = n->api_fd = -1;
	return false;
}

static void bind_ports(struct node *n)
{
	const struct h2o_options *o = &n->h2o;
	int64_t step = o->port_offset == 1 ? 2 : 1;

	if (o->port) {
		n->port = (uint16_t)o->port;
		if (bind_pair(n, o->port))
			return;
		console_started(n);
		node_die(n,
			"On /%s some of the required ports %d, %d are not available, change -port "
			"PORT and try again.",
			inet_ntoa(n->web_ip), (int)o->port, (int)(o->port + o->port_offset));
	}
	for (int64_t p = o->baseport; p + o->port_offset <= 65535; p += step)
		if (bind_pair(n, p))
			return;
	node_die(n, "Cannot find free port for /%s from baseport = %d", inet_ntoa(n->ip),
		(int)o->baseport);
}

int node_listen_api(struct node *n)
{
	if (n->api_fd < 0)
		n->api_fd = tcp_bind(n->web_ip, n->port);
	return n->api_fd;
}

static void become_ready(struct node *n, int64_t arg)
{
	(void)arg;
	if (knob(n, KNOB_never_ready) || (n->archive_mapped && knob(n, KNOB_archive_hang))) {
		timer_after(20, become_ready, 0);
		return;
	}
	n->ready = true;
	n->ready_at = clock_monotonic_ms();
	console_ready(n);
	if (n->archive_mapped && knob(n, KNOB_archive_error))
		console_log(n, LVL_ERROR, "main", "Failed to load a class");
	faults_boot(n);
}

static void rebind(struct node *n, int64_t arg)
{
	(void)arg;
	if (node_listen_api(n) < 0)
		node_die(n,
			"On /%s some of the required ports %d, %d are not available, change -port "
			"PORT and try again.",
			inet_ntoa(n->web_ip), n->port, n->internal_port);
}

/* The flatfile may be a named pipe, which is waited for. */
static void meet(struct node *n, int64_t arg)
{
	(void)arg;
	if (!options_read_flatfile(n)) {
		timer_after(2, meet, 0);
		return;
	}
	gossip_start(n);
	timer_after((uint64_t)knob(n, KNOB_ready_ms), become_ready, 0);
}

static void boot(struct node *n, int64_t arg)
{
	(void)arg;
	bind_ports(n);
	n->bound = true;
	n->bound_at = clock_monotonic_ms();
	files_open_log(n);
	console_jetty(n);
	console_started(n);
	console_bound(n);
	if (knob(n, KNOB_rebind_ms) > 0) {
		http_close_api(n);
		timer_after((uint64_t)knob(n, KNOB_rebind_ms), rebind, 0);
	}
	meet(n, 0);
}

static void exit_later(struct node *n, int64_t code)
{
	node_exit(n, (int)code);
}

static void exit_at_boot(struct node *n, int64_t arg)
{
	(void)arg;
	node_exit(n, (int)knob(n, KNOB_exit_code));
}

void on_signal(struct node *n, int sig)
{
	journal_signal(n, sig);
	if (sig == SIGQUIT) {
		console_thread_dump(n);
		return;
	}
	if (!knob(n, KNOB_ignore_term))
		timer_after((uint64_t)knob(n, KNOB_term_ms), exit_later, 128 + sig);
}

/* As HotSpot: HUP, INT and TERM stay ignored where they were at exec, a blocked one is unblocked by
 * handling it, QUIT dumps threads, the rest keeps its default; -Xrs handles none of them. */
static void handle_signals(struct node *n)
{
	static const int stop[] = {SIGHUP, SIGINT, SIGTERM};
	struct sigaction old;
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(stop) && !n->jvm.reduce_signals; i++)
		if (sigaction(stop[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaddset(&set, stop[i]);
	if (!n->jvm.reduce_signals) {
		signal(SIGQUIT, SIG_DFL);
		sigaddset(&set, SIGQUIT);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
	n->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void resolve_addresses(struct node *n)
{
	const struct h2o_options *o = &n->h2o;

	n->ip.s_addr = htonl(INADDR_LOOPBACK);
	n->web_ip.s_addr = htonl(INADDR_ANY);
	if (o->ip && inet_pton(AF_INET, o->ip, &n->ip) != 1) {
		console_puts(n, "IP address not found on this machine\n");
		node_exit(n, 1);
	}
	if (o->web_ip && inet_pton(AF_INET, o->web_ip, &n->web_ip) != 1) {
		console_puts(n, "IP address not found on this machine\n");
		node_exit(n, 1);
	}
	/* An address that is not of a local interface cannot be bound; 127.0.0.2 could, but H2O
	 * compares with the interfaces' own. */
	_cleanup_close_ int fd = tcp_bind(n->ip, 0);
	if (fd < 0 ||
		((ntohl(n->ip.s_addr) >> 24) == 127 && ntohl(n->ip.s_addr) != INADDR_LOOPBACK)) {
		console_puts(n, "IP address not found on this machine\n");
		node_exit(n, 1);
	}
}

int main(int argc, char **argv)
{
	static struct node n;
	int main_args;

	n.start = clock_monotonic_ms();
	n.start_wall = clock_wall_ms();
	n.api_fd = n.internal_fd = n.signal_fd = n.stolen_fd = n.g.fd = n.log_fd = n.journal_fd =
		n.flatfile_fd = -1;
	http_init(&n);
	jvm_parse(&n, argc, argv, &main_args);
	faults_init(&n);
	files_jvm_start(&n);
	handle_signals(&n);
	if (n.jvm.share_dump)
		files_dump_archive(&n);
	jvm_check_jar(&n);
	for (int i = main_args; i < argc; i++)
		if (streq(argv[i], "-allow_unsupported_java"))
			n.h2o.allow_unsupported_java = true;
	jvm_check_version(&n);
	files_native_lib(&n);
	console_loaded_library(&n);
	options_parse(&n, argc - main_args, argv + main_args);
	resolve_addresses(&n);
	files_h2o_start(&n);
	if (knob(&n, KNOB_exit_at_boot_ms) >= 0)
		timer_after((uint64_t)knob(&n, KNOB_exit_at_boot_ms), exit_at_boot, 0);
	timer_after((uint64_t)knob(&n, KNOB_boot_ms), boot, 0);
	faults_poll_ctl(&n, 0);
	loop_run(&n);
}

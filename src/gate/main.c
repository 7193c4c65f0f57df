#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <jansson.h>

#include "base/log.h"
#include "gate/gate.h"

/* Two thirds of it for pipes alone, the rest for the daemon. */
#define RESERVED 48

static const char usage[] =
	"usage: h2ofleet-gate\n"
	"The door in front of each H2O cloud: h2ofleetd starts it, with a socket as its standard\n"
	"input, and tells it which connections to pass, to hold and to refuse. It lives on when\n"
	"the daemon dies. There is nothing to configure here; see gate_mode in the daemon's\n"
	"configuration.\n"
	"\n"
	"  -h, --help       this text\n"
	"  -V, --version    version\n";

void gate_use_descriptors(enum descriptors what)
{
	struct rlimit r;
	rlim_t reserved;

	if (getrlimit(RLIMIT_NOFILE, &r) < 0)
		return;
	reserved = MIN(r.rlim_max / 4, (rlim_t)RESERVED);
	r.rlim_cur = r.rlim_max;
	if (what == FOR_CONNECTIONS)
		r.rlim_cur -= reserved;
	else if (what == FOR_PIPES)
		r.rlim_cur -= reserved / 3;
	setrlimit(RLIMIT_NOFILE, &r);
}

static int option(int fd, int which)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, which, &value, &len) < 0 ? -1 : value;
}

static bool is_control_socket(int fd)
{
	return option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == SOCK_SEQPACKET &&
	       option(fd, SO_ACCEPTCONN) == 1;
}

/* -1: go on; else the exit status. */
static int parse_options(int argc, char **argv)
{
	if (argc == 1)
		return -1;
	if (argc == 2 && (streq(argv[1], "--help") || streq(argv[1], "-h"))) {
		fputs(usage, stdout);
		return 0;
	}
	if (argc == 2 && (streq(argv[1], "--version") || streq(argv[1], "-V"))) {
		puts("h2ofleet-gate " PACKAGE_VERSION);
		return 0;
	}
	fprintf(stderr, "h2ofleet-gate: '%s' is not understood; try `h2ofleet-gate --help`\n",
		argv[1]);
	return 2;
}

static void on_signal(struct watch *w, _unused_ uint32_t events)
{
	container_of(w, struct gate, signals)->loop.end = true;
}

static int init_signals(struct gate *g)
{
	static const int ignored[] = {SIGHUP, SIGPIPE, SIGUSR1, SIGUSR2};
	sigset_t set;
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		signal(ignored[i], SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* ignored, children could not be waited for */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return -errno;
	watch_init(&g->signals, on_signal);
	return loop_watch(&g->loop, &g->signals, fd, EPOLLIN);
}

static int init(struct gate *g)
{
	int rc = loop_init(&g->loop);

	list_init(&g->doors);
	list_init(&g->lookups);
	g->who = WHO_NULL;
	if (rc == 0)
		rc = init_signals(g);
	if (rc == 0 && fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK) < 0)
		rc = -errno;
	return rc == 0 ? control_init(g) : rc;
}

/* Cut off in the middle, all are told so by an RST: a FIN could be taken for an end in order. */
static void end(struct gate *g)
{
	struct door *d;

	while ((d = list_first(&g->doors, struct door, link)))
		door_free(d);
	groups_free(g);
	control_free(g);
	pipes_free(&g->pipes);
	who_free(&g->who);
	closep(&g->signals.fd);
	loop_free(&g->loop);
}

int gate_main(int argc, char **argv)
{
	struct gate *g;
	int rc = parse_options(argc, argv);

	if (rc >= 0)
		return rc;
	if (!is_control_socket(STDIN_FILENO)) {
		fputs("h2ofleet-gate is started by h2ofleetd, with a listening socket as its "
		      "standard input; started by hand there is nothing that it could do.\n",
			stderr);
		return 2;
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	setsid(); /* what is typed at the daemon's terminal is not for us */
	if (chdir("/") < 0)
		log_warning("chdir /: %s", strerror(errno));
	gate_use_descriptors(FOR_CONNECTIONS);
	json_set_alloc_funcs(xmalloc, free);
	g = xcalloc(1, sizeof(*g));
	rc = init(g);
	if (rc < 0) {
		log_error("the gate cannot start: %s", strerror(-rc));
		free(g);
		return 1;
	}
	loop_run(&g->loop);
	end(g);
	free(g);
	return 0;
}

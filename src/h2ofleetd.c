/* The daemon: reads its configuration, supervises the fleet, serves the control socket. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <curl/curl.h>
#include <systemd/sd-daemon.h>
#include <uv.h>

#include "api/api.h"
#include "base/log.h"
#include "conf/conf.h"
#include "core/fleet.h"
#include "drv/spawn.h"

enum mode { MODE_RUN, MODE_CHECK, MODE_PRINT };

struct daemon {
	uv_loop_t loop;
	struct fleet *fleet;
	struct api *api;
	uv_signal_t signals[3];
	uv_timer_t status;
	char last_status[256];
	bool from_terminal;
	bool ending;
};

static const char usage[] =
	"usage: h2ofleetd [OPTIONS]\n"
	"Keeps local H2O clouds alive. Without --config it reads " PKGSYSCONFDIR "/h2ofleet.conf\n"
	"and conf.d/*.conf there (root) or ~/.config/h2ofleet/ (others); with no file at all\n"
	"it runs one cloud of one node.\n"
	"\n"
	"  -c, --config FILE    read only this file\n"
	"      --check-config   check the configuration and exit\n"
	"      --print-config   print it with all defaults and exit\n"
	"      --debug          log more\n"
	"  -h, --help           this text\n"
	"  -V, --version        version\n"
	"\n"
	"Signals: SIGTERM, SIGINT stop all clouds in order and exit; a second one kills at once.\n";

/* Some text of ours on a failing start: also for systemctl status. */
static int fail(const struct err *e)
{
	log_error("%s", err_msg(e));
	sd_notifyf(0, "STATUS=%s\nERRNO=%d", err_msg(e), -e->code);
	return EXIT_FAILURE;
}

static int load_conf(const char *file, struct conf **conf)
{
	struct conf_errors errors = {0};
	int r = conf_load(file, conf, &errors);

	for (size_t i = 0; i < errors.list.n; i++)
		fprintf(stderr, "%s\n", errors.list.v[i]);
	conf_errors_free(&errors);
	return r;
}

/* ---- status for systemd ---- */

static void publish_status(struct daemon *d)
{
	size_t n = fleet_n_clouds(d->fleet), usable = 0;
	const char *trouble = NULL, *word = NULL;
	char status[sizeof(d->last_status)];

	for (size_t i = 0; i < n; i++) {
		const struct cloud *c = fleet_cloud(d->fleet, i);

		usable += cloud_usable(c);
		if (!cloud_usable(c) && c->wanted == WANTED_RUNNING && !trouble) {
			trouble = c->conf->name;
			word = cloud_state_name(c->state);
		}
	}
	snprintf(status, sizeof(status), "%s%zu of %zu clouds usable%s%s%s%s",
		d->ending ? "Stopping: " : "", usable, n, trouble ? "; " : "",
		trouble ? trouble : "", trouble ? " is " : "", trouble ? word : "");
	if (streq(status, d->last_status))
		return;
	memcpy(d->last_status, status, sizeof(status));
	sd_notifyf(0, "STATUS=%s", status);
}

static void on_status_timer(uv_timer_t *t)
{
	publish_status(t->data);
}

/* ---- signals ---- */

static void on_end(uv_timer_t *t)
{
	struct daemon *d = t->data;

	api_free(d->api);
	d->api = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(d->signals); i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
	uv_close((uv_handle_t *)&d->status, NULL);
	fleet_free(TAKE_PTR(d->fleet));
}

/* Called from deep inside the fleet: let it return first. */
static void on_fleet_down(void *arg)
{
	struct daemon *d = arg;

	uv_timer_start(&d->status, on_end, 0, 0);
}

static void on_signal(uv_signal_t *handle, int sig)
{
	struct daemon *d = handle->data;
	bool again = d->ending;

	if (sig == SIGHUP && !d->from_terminal) {
		log_warning("SIGHUP: this version cannot reload its configuration; restart it");
		return;
	}
	log_notice("SIG%s: %s", sigabbrev_np(sig),
		again ? "killing all clouds at once" : "stopping all clouds");
	d->ending = true;
	sd_notify(0, "STOPPING=1");
	fleet_shutdown(d->fleet, again, on_fleet_down, d);
}

static void watch_signals(struct daemon *d)
{
	static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		uv_signal_start(&d->signals[i], on_signal, numbers[i]);
	}
}

/* ---- life ---- */

static int start(struct daemon *d, struct conf *conf, struct err *e)
{
	int r;

	r = fleet_new(&d->loop, conf, &d->fleet, e);
	if (r < 0)
		return r;
	r = api_new(&d->loop, d->fleet, conf->fleet.socket, &d->api, e);
	if (r < 0) {
		fleet_free(TAKE_PTR(d->fleet));
		return r;
	}
	watch_signals(d);
	uv_timer_init(&d->loop, &d->status);
	d->status.data = d;
	uv_timer_start(&d->status, on_status_timer, 1000, 1000);
	return 0;
}

/* A node takes several descriptors; its JVM gets the limit that we were given. */
static void raise_descriptor_limit(void)
{
	struct rlimit rl;

	spawn_save_limits();
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int run(struct conf *conf)
{
	struct daemon d = {.from_terminal = isatty(STDIN_FILENO)};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is an error of write(), too */
	raise_descriptor_limit();
	umask(S_IWGRP | S_IRWXO);
	curl_global_init(CURL_GLOBAL_NOTHING);
	uv_loop_init(&d.loop);
	r = start(&d, conf, &e);
	if (r == 0) {
		log_notice("h2ofleetd %s, pid %d, control socket %s", PACKAGE_VERSION,
			(int)getpid(), conf->fleet.socket);
		fleet_autostart(d.fleet);
		sd_notify(0, "READY=1");
		publish_status(&d);
	}
	uv_run(&d.loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&d.loop) != 0)
		log_warning("some handles were still open at the end");
	curl_global_cleanup();
	return r < 0 ? fail(&e) : EXIT_SUCCESS;
}

static int parse_args(int argc, char **argv, enum mode *mode, const char **file, bool *debug)
{
	enum { OPT_CHECK = 256, OPT_PRINT, OPT_DEBUG };
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check-config", no_argument, NULL, OPT_CHECK},
		{"print-config", no_argument, NULL, OPT_PRINT},
		{"debug", no_argument, NULL, OPT_DEBUG},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int o;

	while ((o = getopt_long(argc, argv, "c:hV", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			*file = optarg;
			break;
		case OPT_CHECK:
			*mode = MODE_CHECK;
			break;
		case OPT_PRINT:
			*mode = MODE_PRINT;
			break;
		case OPT_DEBUG:
			*debug = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("h2ofleetd " PACKAGE_VERSION);
			return 0;
		default:
			fputs("try `h2ofleetd --help`\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "h2ofleetd: '%s' is not understood; try `h2ofleetd --help`\n",
			argv[optind]);
		return 2;
	}
	return -1;
}

/* Started without them, 0 to 2 would become sockets of ours, which the log then is written to. */
static void open_stdio(void)
{
	int fd;

	while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= STDERR_FILENO)
		continue;
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	enum mode mode = MODE_RUN;
	const char *file = NULL;
	struct conf *conf = NULL;
	bool debug = false;
	int r;

	open_stdio();
	r = parse_args(argc, argv, &mode, &file, &debug);
	if (r >= 0)
		return r;
	if (load_conf(file, &conf) < 0)
		return EXIT_FAILURE;
	if (mode == MODE_RUN) {
		log_set_level(debug ? LOG_LEVEL_DEBUG : (enum log_level)conf->fleet.log_level);
		return run(conf); /* takes it over */
	}
	if (mode == MODE_PRINT)
		conf_print(conf, stdout, true);
	else
		printf("the configuration is fine: %zu cloud%s\n", conf->n_clouds,
			conf->n_clouds == 1 ? "" : "s");
	conf_free(conf);
	return EXIT_SUCCESS;
}

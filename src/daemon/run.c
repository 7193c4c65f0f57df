#include "config.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <curl/curl.h>
#include <systemd/sd-daemon.h>

#include "base/handover.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "drv/reaper.h"
#include "drv/spawn.h"

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

/* ---- the end ---- */

static void on_end(uv_timer_t *t)
{
	struct daemon *d = t->data;

	api_free(d->api);
	d->api = NULL;
	signals_close(d);
	status_close(d);
	reexec_clear(d);
	exit_close(d);
	reaper_stop(d->reaper);
	uv_close((uv_handle_t *)&d->end, NULL);
	fleet_free(TAKE_PTR(d->fleet));
}

/* Called from deep inside the fleet: let it return first. */
static void on_fleet_down(void *arg)
{
	struct daemon *d = arg;

	uv_timer_start(&d->end, on_end, 0, 0);
}

void daemon_end(struct daemon *d)
{
	bool again = d->ending;

	d->ending = true;
	sd_notify(0, "STOPPING=1");
	if (!again)
		exit_limit_begin(d);
	fleet_shutdown(d->fleet, again, on_fleet_down, d);
}

void daemon_detach(struct daemon *d)
{
	if (d->ending) {
		log_notice("SIGUSR2: the clouds are being stopped already");
		return;
	}
	log_notice("SIGUSR2: leaving the clouds running for the next daemon");
	d->ending = true;
	sd_notify(0, "STOPPING=1");
	fleet_detach(d->fleet);
	uv_timer_start(&d->end, on_end, 0, 0);
}

/* ---- life ---- */

static int on_reload(const struct reload_options *opts, struct reload_report *out, void *arg)
{
	return daemon_reload(arg, opts, out);
}

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
	api_set_reload(d->api, on_reload, d);
	api_set_reexec(d->api, reexec_answer, d);
	signals_watch(d);
	status_start(d);
	exit_watch(d);
	uv_timer_init(&d->loop, &d->end);
	d->end.data = d;
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

static int run(const struct options *o, struct conf *conf)
{
	struct daemon d = {.options = o, .from_terminal = isatty(STDIN_FILENO)};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r;

	handover_read();
	reexec_init(&d);
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
		fleet_start(d.fleet);
		handover_drop();
		d.reaper = reaper_start(&d.loop); /* what can be adopted is */
		sd_notify(0, "READY=1");
		status_publish(&d);
	}
	uv_run(&d.loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&d.loop) != 0)
		log_warning("some handles were still open at the end");
	curl_global_cleanup();
	return r < 0 ? fail(&e) : d.exit.code;
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

static int check_state(struct conf *conf)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = fleet_check_state(conf, &e);

	if (r < 0)
		fprintf(stderr, "%s\n", err_msg(&e));
	conf_free(conf);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int daemon_main(int argc, char **argv)
{
	struct options o = {.mode = MODE_RUN, .argv = argv};
	struct conf *conf = NULL;
	int r;

	open_stdio();
	r = options_parse(argc, argv, &o);
	if (r >= 0)
		return r;
	if (o.mode == MODE_ROTATE)
		return rotate_main(o.rotate);
	if (load_conf(o.file, &conf) < 0)
		return EXIT_FAILURE;
	if (o.mode == MODE_RUN) {
		log_set_level(o.debug ? LOG_LEVEL_DEBUG : (enum log_level)conf->fleet.log_level);
		return run(&o, conf); /* takes it over */
	}
	if (o.mode == MODE_CHECK_STATE)
		return check_state(conf);
	if (o.mode == MODE_PRINT)
		conf_print(conf, stdout, true);
	else
		printf("the configuration is fine: %zu cloud%s\n", conf->n_clouds,
			conf->n_clouds == 1 ? "" : "s");
	conf_free(conf);
	return EXIT_SUCCESS;
}

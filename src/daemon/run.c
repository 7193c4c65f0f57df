#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <curl/curl.h>
#include <jansson.h>

#include "base/handover.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "drv/activation.h"
#include "drv/http.h"
#include "drv/reaper.h"
#include "drv/spawn.h"

/* The sentence on a failing start: also for systemctl status. */
static int fail(const struct err *e)
{
	int status = e->code == -EINVAL ? EXIT_CONFIG : EXIT_FAILURE;

	log_error("%s", err_msg(e));
	status_failed(e, status);
	return status;
}

/* The daemon says it when it does it. */
static void show_aside(const struct conf *conf)
{
	for (size_t i = 0; i < conf->n_aside; i++)
		fprintf(stderr, "%s: %s; the daemon would set this cloud aside\n",
			conf->aside[i].file, conf->aside[i].why);
}

static int load_conf(const char *file, enum daemon_mode mode, struct conf **conf)
{
	struct conf_errors errors = {0};
	const struct conf_source from = {
		.file = file,
		/* What runs must not be set aside by a reexec. */
		.strict = mode == MODE_CHECK_STATE,
		.skip_unreadable = mode == MODE_CHECK || mode == MODE_PRINT,
	};
	int r = conf_load_all(&from, conf, &errors);

	for (size_t i = 0; i < errors.list.n; i++)
		fprintf(stderr, "%s\n", errors.list.v[i]);
	if (r < 0 && errors.list.n && mode == MODE_RUN)
		status_failed(&(struct err){.code = r, .msg = errors.list.v[0]}, EXIT_CONFIG);
	conf_errors_free(&errors);
	if (r == 0 && mode == MODE_CHECK)
		show_aside(*conf);
	return r;
}

/* ---- the end ---- */

static void on_end(uv_timer_t *t)
{
	struct daemon *d = t->data;

	api_free(TAKE_PTR(d->api));
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

	if (d->detached)
		return;
	d->ending = true;
	status_ending(d, false);
	if (!again)
		exit_limit_begin(d);
	if (d->options->mode == MODE_END && !again)
		fleet_end_left_behind(d->fleet, on_fleet_down, d);
	else
		fleet_shutdown(d->fleet, again, on_fleet_down, d);
}

void daemon_detach(struct daemon *d)
{
	if (d->ending) {
		log_notice("SIGUSR2: the clouds are being stopped already");
		return;
	}
	log_notice("SIGUSR2: leaving the clouds running for the next daemon");
	d->ending = d->detached = true;
	status_ending(d, true);
	fleet_detach(d->fleet);
	uv_timer_start(&d->end, on_end, 0, 0);
}

/* ---- life ---- */

static int on_reload(const struct reload_options *opts, struct reload_report *out, void *arg)
{
	return daemon_reload(arg, opts, out);
}

static void on_shutdown(bool at_once, void *arg)
{
	struct daemon *d = arg;
	bool again = d->ending;

	log_notice("control socket: %s",
		at_once ? "killing all clouds at once" : "stopping all clouds");
	if (!again)
		daemon_end(d);
	if (at_once)
		daemon_end(d);
}

static int start(struct daemon *d, struct conf *conf, struct err *e)
{
	bool serve = d->options->mode == MODE_RUN;
	int r;

	r = fleet_new(&d->loop, conf, &d->fleet, e);
	if (r == 0 && serve) {
		r = api_new(&d->loop, d->fleet, conf->fleet.socket, &d->api, e);
		activation_close_rest();
	}
	if (r < 0) {
		fleet_free(TAKE_PTR(d->fleet));
		reexec_clear(d);
		return r;
	}
	if (serve) {
		api_set_reload(d->api, on_reload, d);
		api_set_reexec(d->api, reexec_answer, d);
		api_set_shutdown(d->api, on_shutdown, d);
	}
	signals_watch(d);
	status_start(d);
	exit_watch(d);
	uv_timer_init(&d->loop, &d->end);
	d->end.data = d;
	return 0;
}

/* Made by h2ofleetd-stop.service when we are to stop: should we die of that, h2ofleetd.service ends
 * what is left (ExecStopPost=). One of an earlier stop must not turn a crash of this daemon into
 * the end of its clouds. */
static void forget_stop(void)
{
	const char *dir = getenv("RUNTIME_DIRECTORY");
	_cleanup_free_ char *mark = dir ? xasprintf("%s/stopping", dir) : NULL;

	if (mark && unlink(mark) < 0 && errno != ENOENT)
		log_warning("cannot remove %s: %s", mark, strerror(errno));
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

static void begin(struct daemon *d)
{
	if (d->options->mode == MODE_END) {
		daemon_end(d);
		return;
	}
	forget_stop();
	log_notice("h2ofleetd %s, pid %d, control socket %s", PACKAGE_VERSION, (int)getpid(),
		fleet_conf(d->fleet)->fleet.socket);
	fleet_start(d->fleet);
	handover_drop();
	d->reaper = reaper_start(&d->loop); /* what can be adopted is */
}

static int begin_libraries(struct daemon *d, struct err *e)
{
	int r;

	if (http_begin(false) < 0)
		return err_set(e, -ENOMEM, "cannot begin: out of memory");
	r = uv_loop_init(&d->loop);
	return r < 0 ? err_set_errno(e, r, "cannot begin") : 0;
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
	activation_init();
	raise_descriptor_limit();
	umask(S_IWGRP | S_IRWXO);
	r = begin_libraries(&d, &e);
	if (r < 0) {
		reexec_clear(&d);
		conf_free(conf);
		return fail(&e);
	}
	r = start(&d, conf, &e);
	if (o->until_eof) /* we can be found now, by the lock: whose child we are does not matter */
		prctl(PR_SET_PDEATHSIG, 0);
	if (r == 0)
		begin(&d);
	uv_run(&d.loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&d.loop) != 0)
		log_warning("some handles were still open at the end");
	curl_global_cleanup();
	return r < 0 ? fail(&e) : d.exit.code;
}

void warn_of_conf(const struct conf *conf)
{
	for (size_t i = 0; i < conf->n_clouds; i++) {
		_cleanup_free_ char *sentence = cloud_conf_warning(conf->clouds[i]);

		if (sentence)
			log_warning("cloud %s: %s", conf->clouds[i]->name, sentence);
	}
}

/* For when the daemon died and none will follow (the units use it: HACKING.md). A configuration
 * that cannot be read must not save what is left from its end. */
static int end_left_behind(const struct options *o)
{
	struct conf *conf = NULL;
	pid_t pid;
	int r;

	if (load_conf(o->file, o->mode, &conf) < 0) {
		fprintf(stderr, "h2ofleetd: going on with the usual directories\n");
		if (load_conf("/dev/null", o->mode, &conf) < 0)
			return EXIT_CONFIG;
	}
	r = fleet_find_daemon(&conf->fleet, &pid);
	if (r == -EBUSY)
		fprintf(stderr, "h2ofleetd (pid %d) is running on %s and looks after its clouds\n",
			(int)pid, conf->fleet.state_dir);
	if (r == 0)
		return run(o, conf); /* takes it over */
	conf_free(conf);
	return r == -EBUSY ? EXIT_IN_CHARGE : EXIT_SUCCESS;
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

static int check_state(const struct options *o, struct conf *conf)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r;

	if (o->state_dir && !streq(o->state_dir, conf->fleet.state_dir))
		r = err_set(&e, -EINVAL,
			"state_dir is %s now, and the running daemon's is %s: that needs an end "
			"and a "
			"new start of the daemon",
			conf->fleet.state_dir, o->state_dir);
	else
		r = fleet_check_state(conf, &e);
	if (r < 0)
		fprintf(stderr, "%s\n", err_msg(&e));
	conf_free(conf);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Without memory libjansson would say of a good file that it is damaged, and libuv end us without a
 * word. */
static void set_allocators(void)
{
	json_set_alloc_funcs(xmalloc, free);
	uv_replace_allocator(xmalloc, xrealloc, xcalloc, free);
}

int daemon_main(int argc, char **argv)
{
	struct options o = {.mode = MODE_RUN, .argv = argv};
	struct conf *conf = NULL;
	int r;

	set_allocators();
	open_stdio();
	r = options_parse(argc, argv, &o);
	if (r >= 0)
		return r;
	if (o.mode == MODE_ROTATE)
		return rotate_main(o.args);
	if (o.mode == MODE_BOOT)
		return boot_main(o.args);
	if (o.mode == MODE_EXPLAIN)
		return explain_main(o.args);
	if (o.mode == MODE_END)
		return end_left_behind(&o);
	if (load_conf(o.file, o.mode, &conf) < 0)
		return EXIT_CONFIG;
	if (o.mode == MODE_RUN) {
		log_set_level(o.debug ? LOG_LEVEL_DEBUG : (enum log_level)conf->fleet.log_level);
		warn_of_conf(conf);
		return run(&o, conf); /* takes it over */
	}
	if (o.mode == MODE_CHECK_STATE)
		return check_state(&o, conf);
	if (o.mode == MODE_PRINT) {
		conf_print(conf, stdout, true);
	} else {
		warn_of_conf(conf);
		printf("the configuration is fine: %zu cloud%s\n", conf->n_clouds,
			conf->n_clouds == 1 ? "" : "s");
	}
	conf_free(conf);
	return EXIT_SUCCESS;
}

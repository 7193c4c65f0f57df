/* A throw-away node: a cloud of one on 127.0.0.1 that nobody else can find. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "drv/bootwork.h"
#include "drv/procinfo.h"

#define ADDRESS "127.0.0.1"
/* Below the range for outgoing connections as it usually is. */
#define PORT_LOW   20000
#define PORT_HIGH  32000
#define PORT_TRIES 200

#define POLL_MS    20
#define HELD_MS    2000 /* requests are held until H2O is ready */
#define STOP_MS    120000
#define DYING_MS   500 /* from the end of its connections to its own */
#define BODY_MAX   (32u << 20)
#define OUTPUT_MAX (4u << 20)
#define LINE_MAX_  300

static int hold_ports(struct boot_node *n, struct err *e)
{
	uint64_t seed = clock_wall_ms() ^ ((uint64_t)getpid() << 32);

	for (int i = 0; i < PORT_TRIES; i++) {
		uint16_t port =
			(uint16_t)(PORT_LOW + rng_next(&seed) % ((PORT_HIGH - PORT_LOW) / 2) * 2);

		if (!port_is_ephemeral(port) && port_is_open_to_jvm(ADDRESS, port) &&
			port_is_open_to_jvm(ADDRESS, port + 1) &&
			port_pair_hold(ADDRESS, ADDRESS, port, &n->ports, NULL) == 0)
			return 0;
	}
	return err_set(
		e, -EADDRINUSE, "no two free ports found between %d and %d", PORT_LOW, PORT_HIGH);
}

/* As model/plan.c does: -jar takes the Add-Opens of the jar's manifest, -cp does not. */
static void add_program(const struct boot_runtime *rt, struct strv *argv)
{
	static const char *const opens[] = {"java.lang", "java.util", "java.lang.reflect"};
	_cleanup_free_ char *classpath = boot_full_classpath(rt);

	if (!rt->extra_classpath && !rt->main_class) {
		strv_add(argv, "-jar");
		strv_add(argv, rt->jar);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(opens); i++)
		strv_printf(argv, "--add-opens=java.base/%s=ALL-UNNAMED", opens[i]);
	strv_add(argv, "-cp");
	strv_add(argv, classpath);
	strv_add(argv, rt->main_class ? rt->main_class : "water.H2OApp");
}

static void add_argv(const struct boot_node *n, const struct strv *flags, struct strv *argv)
{
	const struct boot_runtime *rt = &n->job->rq->runtime;

	strv_add(argv, rt->java);
	strv_add(argv, BOOT_HEAP);
	if (rt->big_heap) /* what a heap of 32 GB and more means for an archive */
		strv_add(argv, "-XX:-UseCompressedOops");
	strv_add(argv, "-XX:-UsePerfData"); /* a file in /tmp, which SIGKILL would leave there */
	strv_add(argv, "-XX:-CreateCoredumpOnCrash");
	strv_printf(argv, "-XX:ErrorFile=%s/hs_err.log", n->dir);
	strv_printf(argv, "-Djava.io.tmpdir=%s/tmp", n->dir);
	strv_add(argv, "-Dsys.ai.h2o.telemetry.disabled=true");
	strv_add(argv, "-Dsys.ai.h2o.heartbeat.benchmark.enabled=false");
	strv_printf(argv, "-Dsys.ai.h2o.debug.allowJavaVersions=%d", rt->java_major);
	strv_copy(argv, flags);
	add_program(rt, argv);
	strv_add(argv, "-name");
	strv_printf(argv, "h2ofleet-boot-%d-%s", (int)getpid(), n->name);
	strv_add(argv, "-ip");
	strv_add(argv, ADDRESS);
	strv_add(argv, "-web_ip");
	strv_add(argv, ADDRESS);
	strv_add(argv, "-port");
	strv_printf(argv, "%u", n->ports.api);
	strv_add(argv, "-flatfile");
	strv_printf(argv, "%s/flatfile", n->dir);
	strv_add(argv, "-ice_root");
	strv_printf(argv, "%s/ice", n->dir);
	strv_add(argv, "-log_dir");
	strv_printf(argv, "%s/log", n->dir);
}

static int make_dirs(struct boot_node *n, struct err *e)
{
	_cleanup_free_ char *tmp = xasprintf("%s/tmp", n->dir);
	_cleanup_free_ char *flatfile = xasprintf("%s/flatfile", n->dir);
	_cleanup_free_ char *out = xasprintf("%s/out", n->dir);
	_cleanup_free_ char *line = xasprintf(ADDRESS ":%u\n", n->ports.api);
	int r = file_mkdirs(tmp, 0700, e);

	if (r == 0)
		r = file_write_atomic(flatfile, line, strlen(line), 0600, false, e);
	if (r < 0)
		return r;
	n->out = open(out, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	return n->out < 0 ? err_set_errno(e, -errno, "cannot write %s", out) : 0;
}

int boot_node_start(struct boot_node *n, const struct boot_job *job, const char *name,
	const struct strv *flags, struct err *e)
{
	static char *const no_env[] = {NULL};
	_cleanup_(strv_free) struct strv argv = STRV_NULL, env = STRV_NULL;
	int r;

	*n = (struct boot_node){.job = job,
		.name = name,
		.ports = PORT_PAIR_NULL,
		.process = BOOT_PROCESS_NULL,
		.out = -1};
	n->dir = xasprintf("%s/%s", job->work, name);
	uv_loop_init(&n->loop);
	n->has_loop = true;
	r = http_new(&n->loop, &n->http, e);
	if (r == 0)
		r = hold_ports(n, e);
	if (r == 0)
		r = make_dirs(n, e);
	if (r < 0)
		return r;
	add_argv(n, flags, &argv);
	for (char *const *v = job->rq->env ? job->rq->env : no_env; *v; v++)
		strv_add(&env, *v);
	strv_add(&env, "DO_NOT_TRACK=1");
	n->begun_ms = clock_monotonic_ms();
	return boot_spawn(argv.v, env.v, n->dir, n->out, &n->process, e);
}

/* --- asking ------------------------------------------------------------------------------- */

struct question {
	bool done;
	int status; /* or a negative errno */
	json_t *answer;
	struct err *e;
};

static void on_answer(const struct http_response *rsp, void *arg)
{
	struct question *q = arg;

	q->done = true;
	if (rsp->result == HTTP_OK) {
		q->status = rsp->status;
		q->answer = json_loadb(rsp->body, rsp->body_len, 0, NULL);
		return;
	}
	q->status = rsp->result == HTTP_TIMEOUT   ? -ETIMEDOUT
		    : rsp->result == HTTP_REFUSED ? -ECONNREFUSED
						  : -EPROTO;
	err_set(q->e, q->status, "%s", rsp->error);
}

/* Wakes the loop, so that it is seen that we are to end. */
static void on_tick(_unused_ uv_timer_t *t)
{
}

static int ask(struct boot_node *n, const char *method, const char *path, const char *form,
	uint64_t timeout_ms, json_t **answer, struct err *e)
{
	_cleanup_free_ char *url = xasprintf("http://" ADDRESS ":%u%s", n->ports.api, path);
	struct question q = {.e = e};
	struct http_spec spec = {.url = url,
		.method = method,
		.form = form,
		.timeout_ms = timeout_ms,
		.max_body = BODY_MAX};
	struct http_request *request;
	uv_timer_t tick;
	int r = http_start(n->http, &spec, on_answer, &q, &request);

	*answer = NULL;
	if (r < 0)
		return err_set_errno(e, r, "cannot ask %s", url);
	uv_timer_init(&n->loop, &tick);
	uv_timer_start(&tick, on_tick, POLL_MS, POLL_MS);
	while (!q.done && !boot_told_to_end())
		uv_run(&n->loop, UV_RUN_ONCE);
	if (!q.done) {
		http_cancel(request);
		q.status = err_set(e, -EINTR, "told to end");
	}
	uv_close((uv_handle_t *)&tick, NULL);
	uv_run(&n->loop, UV_RUN_NOWAIT);
	*answer = q.answer;
	return q.status;
}

int boot_node_ask(struct boot_node *n, const char *method, const char *path, const char *form,
	json_t **answer, struct err *e)
{
	return ask(n, method, path, form, boot_patience_ms(n->job), answer, e);
}

static bool serves(struct boot_node *n)
{
	json_t *cloud = NULL;
	const json_t *self;
	bool yes = false;

	if (ask(n, "GET", "/3/Cloud?skip_ticks=true", NULL, HELD_MS, &cloud, NULL) == 200) {
		self = json_array_get(json_object_get(cloud, "nodes"), 0);
		yes = json_integer_value(json_object_get(cloud, "cloud_size")) == 1 &&
		      json_is_true(json_object_get(cloud, "consensus")) &&
		      json_is_true(json_object_get(cloud, "cloud_healthy")) &&
		      json_integer_value(json_object_get(self, "pid")) == n->process.pid;
	}
	json_decref(cloud);
	return yes;
}

int boot_node_wait(struct boot_node *n, struct err *e)
{
	uint64_t deadline = n->begun_ms + boot_patience_ms(n->job);
	struct process_usage usage = {0};

	/* Until its port is open nobody is asked: H2O holds requests until it is ready, and an
	 * attempt that fails is an attempt to connect to ourselves. */
	for (;;) {
		if (boot_told_to_end())
			return err_set(e, -EINTR, "told to end");
		if (boot_has_ended(&n->process)) {
			_cleanup_free_ char *words = boot_node_last_words(n);

			return err_set(e, -ESRCH, "ended: %s", words);
		}
		if (!port_is_open_to_jvm(ADDRESS, n->ports.api) && serves(n))
			break;
		if (clock_monotonic_ms() >= deadline)
			return err_set(e, -ETIMEDOUT, "did not become ready within %" PRIu64 " s",
				boot_patience_ms(n->job) / 1000);
		usleep(POLL_MS * 1000);
	}
	n->ready_ms = clock_monotonic_ms() - n->begun_ms;
	process_usage_read(n->process.pid, &usage);
	n->ready_cpu_ms = usage.cpu_ms;
	return 0;
}

/* --- the end ------------------------------------------------------------------------------ */

int boot_node_stop(struct boot_node *n, struct err *e)
{
	int status, r;

	kill(n->process.pid, SIGTERM); /* not reaped yet */
	r = boot_wait(&n->process, MAX(boot_patience_ms(n->job), (uint64_t)STOP_MS), &status);
	if (r == -EINTR)
		return err_set(e, r, "told to end");
	if (r < 0)
		return err_set(e, r, "did not end after SIGTERM");
	/* What it was to write is not whole then. */
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return boot_not_its_fault(128 + SIGKILL, "", e);
	return 0;
}

void boot_node_end(struct boot_node *n)
{
	boot_end(&n->process);
	http_free(n->http);
	if (n->has_loop) {
		while (uv_loop_close(&n->loop) == UV_EBUSY)
			uv_run(&n->loop, UV_RUN_ONCE);
	}
	port_pair_release(&n->ports);
	closep(&n->out);
	if (n->dir)
		file_remove_tree(n->dir, NULL);
	free(n->dir);
	*n = (struct boot_node){.ports = PORT_PAIR_NULL, .process = BOOT_PROCESS_NULL, .out = -1};
}

/* Owned by the caller. */
static char *read_output(const struct boot_node *n)
{
	char *text = xmalloc(OUTPUT_MAX + 1);
	ssize_t len = n->out >= 0 ? pread(n->out, text, OUTPUT_MAX, 0) : 0;

	text[MAX(len, 0)] = '\0';
	return text;
}

int boot_node_excused(const struct boot_node *n, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	struct pollfd pfd = {.fd = n->process.pidfd, .events = POLLIN};

	/* It may only just have lost its memory and its sockets. */
	poll(&pfd, 1, DYING_MS);
	text = read_output(n);
	return boot_not_its_fault(boot_ended_with(&n->process), text, e);
}

/* "11-30 13:52:56.216 127.0.0.1:46000  32454  main FATAL water.default: ..." */
static bool is_grave(const char *line)
{
	return strstr(line, " FATAL water.") || strstr(line, "ERROR water.") ||
	       has_prefix(line, "# A fatal error has been detected");
}

void boot_node_errors(const struct boot_node *n, struct strv *lines)
{
	_cleanup_free_ char *text = read_output(n);
	char *save = NULL;

	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *mark = strstr(line, "water.default: ");
		const char *said = mark ? mark + strlen("water.default: ") : line;

		if (is_grave(line) && *said)
			strv_take(lines, text_visible(said, strnlen(said, LINE_MAX_)));
	}
}

/* The first grave line tells most: what follows is its stack. */
char *boot_node_last_words(const struct boot_node *n)
{
	_cleanup_(strv_free) struct strv grave = STRV_NULL;
	_cleanup_free_ char *text = read_output(n);
	const char *last = "it said nothing";
	char *save = NULL;

	boot_node_errors(n, &grave);
	if (grave.n)
		return xstrdup(grave.v[0]);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		last = line;
	return text_visible(last, strnlen(last, LINE_MAX_));
}

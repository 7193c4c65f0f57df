/* When and how the daemon ends by itself (exit_when, --until-eof), and how long an end may take. */
#include <errno.h>
#include <fcntl.h>

#include "base/log.h"
#include "base/text.h"
#include "daemon/daemon.h"

#define LOOK_MS 250

/* docker stop and podman stop kill after 10 s: time for the kernel and for cleaning must be left.
 */
#define SHUTDOWN_CONTAINER_MS 8000

/* As process 1, or right below a container's small init. */
static bool in_container(void)
{
	return getpid() == 1 ||
	       (getppid() == 1 && (access("/.dockerenv", F_OK) == 0 ||
					  access("/run/.containerenv", F_OK) == 0));
}

static uint64_t shutdown_limit(const struct daemon *d)
{
	uint64_t ms = fleet_conf(d->fleet)->fleet.shutdown_timeout_ms;

	if (ms == SHUTDOWN_AUTO)
		ms = in_container() ? SHUTDOWN_CONTAINER_MS : UINT64_MAX;
	return ms;
}

static void on_limit(uv_timer_t *t)
{
	struct daemon *d = t->data;
	_cleanup_free_ char *limit = text_human_duration(shutdown_limit(d));

	log_warning("not all clouds have ended within %s (shutdown_timeout); killing them", limit);
	daemon_end(d);
}

void exit_limit_begin(struct daemon *d)
{
	uint64_t ms = shutdown_limit(d);

	uv_timer_stop(&d->exit.timer);
	if (ms != UINT64_MAX)
		uv_timer_start(&d->exit.timer, on_limit, ms, 0);
}

/* What has become of the clouds that were ever wanted. */
struct rest {
	const struct cloud *failed; /* one of them */
	bool some;                  /* there are any */
	bool all;                   /* none of them runs, or is to run */
};

static struct rest look_at_clouds(const struct daemon *d)
{
	struct rest r = {.all = true};

	for (size_t i = 0; i < fleet_n_clouds(d->fleet); i++) {
		const struct cloud *c = fleet_cloud(d->fleet, i);
		bool rests = c->state == CLOUD_FAILED ||
			     (c->state == CLOUD_STOPPED && c->wanted == WANTED_STOPPED &&
				     !cloud_armed(c)); /* without us nobody would start it */

		r.some |= c->state == CLOUD_FAILED || c->wanted == WANTED_RUNNING;
		r.all &= rests && cloud_quiet(c);
		if (c->state == CLOUD_FAILED && cloud_quiet(c) && !r.failed)
			r.failed = c;
	}
	return r;
}

static void look(uv_timer_t *t)
{
	struct daemon *d = t->data;
	int when = fleet_conf(d->fleet)->fleet.exit_when;
	struct rest r = look_at_clouds(d);

	d->exit.some_wanted |= r.some;
	if (when == EXIT_WHEN_STOPPED && d->exit.some_wanted && r.all)
		log_notice("all clouds have come to rest; ending (exit_when = stopped)");
	else if (when == EXIT_WHEN_FAILED && r.failed)
		log_error("cloud %s has failed; ending (exit_when = failed)", r.failed->conf->name);
	else
		return;
	if (r.failed)
		d->exit.code = EXIT_CLOUD_FAILED;
	daemon_end(d);
}

/* Whoever started us held the other end of a pipe, and is gone. What comes through it means
 * nothing. */
static void on_input(uv_poll_t *input, int status, int events _unused_)
{
	struct daemon *d = input->data;
	char rest[4096];
	ssize_t n = status < 0 ? 0 : read(STDIN_FILENO, rest, sizeof(rest));

	if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
		return;
	uv_poll_stop(input);
	log_notice("standard input has ended (--until-eof); stopping all clouds");
	if (!d->ending)
		daemon_end(d);
}

static void watch_input(struct daemon *d)
{
	int flags = fcntl(STDIN_FILENO, F_GETFL);

	if (flags < 0 || fcntl(STDIN_FILENO, F_SETFL, flags | O_NONBLOCK) < 0 ||
		uv_poll_init(&d->loop, &d->exit.input, STDIN_FILENO) < 0) {
		log_warning("standard input cannot be watched: --until-eof has no effect");
		return;
	}
	d->exit.has_input = true;
	d->exit.input.data = d;
	uv_poll_start(&d->exit.input, UV_READABLE, on_input);
}

void exit_watch(struct daemon *d)
{
	if (d->options->until_eof && d->options->mode == MODE_RUN)
		watch_input(d);
	uv_timer_init(&d->loop, &d->exit.timer);
	d->exit.timer.data = d;
	uv_timer_start(&d->exit.timer, look, LOOK_MS, LOOK_MS);
}

void exit_close(struct daemon *d)
{
	if (d->exit.has_input)
		uv_close((uv_handle_t *)&d->exit.input, NULL);
	uv_close((uv_handle_t *)&d->exit.timer, NULL);
}

#include <errno.h>
#include <inttypes.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "core/trouble.h"
#include "daemon/daemon.h"
#include "drv/notify.h"

#define TICK_MAX_MS 1000
#define TICK_MIN_MS 50
/* While we start or end, systemd is told every EXTEND_EVERY_MS that it may take EXTEND_BY_MS more;
 * each cloud's start and end is bounded by its own keys. */
#define EXTEND_EVERY_MS 5000
#define EXTEND_BY_MS    20000

/* ---- the line ---- */

/* The first cloud that is not as it is wanted. */
static const struct cloud *troubled(const struct daemon *d)
{
	for (size_t i = 0; i < fleet_n_clouds(d->fleet); i++) {
		const struct cloud *c = fleet_cloud(d->fleet, i);

		if (!cloud_usable(c) && c->wanted == WANTED_RUNNING)
			return c;
	}
	return NULL;
}

/* "3 clouds: 1 usable, 1 stopped; dev is recovering: node 1 was killed by SIGKILL". Owned by the
 * caller. */
static char *make_line(const struct daemon *d)
{
	size_t n = fleet_n_clouds(d->fleet), usable = 0, stopped = 0;
	_cleanup_free_ char *line = NULL, *rest = NULL, *counts = NULL;
	const char *trouble = fleet_trouble(d->fleet);
	const struct cloud *bad = troubled(d);

	for (size_t i = 0; i < n; i++) {
		const struct cloud *c = fleet_cloud(d->fleet, i);

		usable += cloud_usable(c);
		stopped += c->state == CLOUD_STOPPED && c->wanted == WANTED_STOPPED;
	}
	counts = stopped ? xasprintf(", %zu stopped", stopped) : xstrdup("");
	rest = bad ? xasprintf("; %s is %s%s%s", bad->conf->name, cloud_state_name(bad->state),
			     bad->reason ? ": " : "", bad->reason ? bad->reason : "")
		   : xstrdup("");
	line = xasprintf("%s%s%zu of %zu clouds usable%s%s%s%s",
		d->status.doing ? d->status.doing : "", d->status.doing ? ": " : "", usable, n,
		counts, rest, trouble ? "; trouble: " : "", trouble ? trouble : "");
	return text_visible(line, strlen(line));
}

static void publish_line(struct daemon *d)
{
	struct status *s = &d->status;
	char *line = make_line(d);

	if (s->line && streq(line, s->line) && !s->unsent_line) {
		free(line);
		return;
	}
	free(s->line);
	s->line = line;
	s->unsent_line = notify_sendf("STATUS=%s", line) == -EAGAIN;
}

/* ---- the start is done ---- */

static void publish_ready(struct daemon *d)
{
	struct status *s = &d->status;
	bool usable = fleet_conf(d->fleet)->fleet.ready_when == READY_WHEN_CLOUDS;

	if (!s->ready && !d->ending && fleet_settled(d->fleet, usable)) {
		s->ready = s->unsent_ready = true;
		s->doing = NULL;
		s->extended_ms = 0;
	}
	if (s->unsent_ready && !d->ending)
		s->unsent_ready = notify_send("READY=1") == -EAGAIN;
}

static void on_prepare(uv_prepare_t *p)
{
	struct daemon *d = p->data;

	struct status *s = &d->status;

	if (!d->fleet || (s->line && s->changes == fleet_changes(d->fleet) && !s->unsent_line &&
				 !s->unsent_ready))
		return;
	s->changes = fleet_changes(d->fleet);
	publish_ready(d);
	publish_line(d);
}

/* ---- we live ---- */

/* The loop runs, or we would not be here; but does it do what it is for? */
static bool makes_progress(struct daemon *d)
{
	uint64_t overdue = d->fleet ? fleet_overdue_ms(d->fleet) : 0;

	if (overdue > FLEET_OVERDUE_MAX_MS && !d->status.stuck)
		log_error("a deadline was missed by %" PRIu64 " ms, so a cloud may not be "
			  "supervised any more%s",
			overdue,
			d->status.watchdog_ms ? "; the watchdog will end this daemon" : "");
	d->status.stuck = overdue > FLEET_OVERDUE_MAX_MS;
	return !d->status.stuck;
}

static void ask_for_time(struct daemon *d)
{
	struct status *s = &d->status;
	uint64_t now = clock_monotonic_ms();

	if (s->ready && !d->ending)
		return;
	if (s->extended_ms && now < s->extended_ms + EXTEND_EVERY_MS)
		return;
	if (notify_sendf("EXTEND_TIMEOUT_USEC=%d", EXTEND_BY_MS * 1000) == 0)
		s->extended_ms = now;
}

static void on_tick(uv_timer_t *t)
{
	struct daemon *d = t->data;

	if (!makes_progress(d))
		return;
	if (d->status.watchdog_ms)
		notify_send("WATCHDOG=1");
	ask_for_time(d);
}

/* ---- for the others ---- */

void status_start(struct daemon *d)
{
	struct status *s = &d->status;

	s->doing = d->reexec.count ? NULL : "Starting";
	s->watchdog_ms = notify_watchdog_ms();
	s->tick_ms = TICK_MAX_MS;
	if (s->watchdog_ms) /* so that one lost on the way does no harm */
		s->tick_ms = MIN(s->tick_ms, MAX(s->watchdog_ms / 4, (uint64_t)TICK_MIN_MS));
	uv_timer_init(&d->loop, &s->tick);
	uv_prepare_init(&d->loop, &s->prepare);
	s->tick.data = s->prepare.data = d;
	uv_timer_start(&s->tick, on_tick, 0, s->tick_ms);
	uv_prepare_start(&s->prepare, on_prepare);
}

void status_close(struct daemon *d)
{
	uv_close((uv_handle_t *)&d->status.tick, NULL);
	uv_close((uv_handle_t *)&d->status.prepare, NULL);
	free(TAKE_PTR(d->status.line));
}

void status_reloading(struct daemon *d)
{
	d->status.doing = "Reloading";
	notify_sendf("RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_monotonic_ms() * 1000);
	publish_line(d);
}

void status_reloaded(struct daemon *d)
{
	d->status.doing = d->status.ready ? NULL : "Starting";
	/* Also tells that the reload is done; not before the start is. */
	d->status.unsent_ready = d->status.ready;
	publish_ready(d);
	publish_line(d);
}

void status_ending(struct daemon *d, bool detaching)
{
	d->status.doing = detaching ? "Leaving the clouds to the next daemon" : "Stopping";
	d->status.extended_ms = 0;
	notify_send("STOPPING=1");
	publish_line(d);
}

void status_failed(const struct err *e, int exit_status)
{
	_cleanup_free_ char *line = text_visible(err_msg(e), strlen(err_msg(e)));

	notify_sendf("STATUS=%s\nERRNO=%d\nEXIT_STATUS=%d", line, -e->code, exit_status);
}

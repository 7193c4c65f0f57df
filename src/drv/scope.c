#include "drv/scope.h"

#include <errno.h>
#include <poll.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-login.h>

#define SYSTEMD  "org.freedesktop.systemd1"
#define OBJECT   "/org/freedesktop/systemd1"
#define MANAGER  "org.freedesktop.systemd1.Manager"
#define USEC_SEC UINT64_C(1000000)

struct scope_job {
	uv_poll_t poll;
	uv_timer_t deadline;
	unsigned n_handles;
	sd_bus *bus;
	sd_bus_message *plain; /* the same for an older systemd; NULL: none, or sent */
	char *job; /* path of systemd's job, whose end we wait for; NULL: not yet known */
	uint64_t timeout_ms;
	bool finished;
	int result;
	char *why;
	scope_cb cb;
	void *arg;
};

bool scope_systemd_booted(void)
{
	return sd_booted() > 0;
}

char *scope_own_unit(bool user)
{
	char *unit = NULL;
	int r = user ? sd_pid_get_user_unit(0, &unit) : sd_pid_get_unit(0, &unit);

	return r < 0 ? NULL : unit;
}

/* ---- the end of a job ---- */

static void on_closed(uv_handle_t *h)
{
	struct scope_job *j = h->data;

	if (--j->n_handles)
		return;
	free(j->job);
	free(j->why);
	free(j);
}

void scope_cancel(struct scope_job *j)
{
	if (!j)
		return;
	sd_bus_message_unref(TAKE_PTR(j->plain));
	uv_close((uv_handle_t *)&j->poll, on_closed);
	uv_close((uv_handle_t *)&j->deadline, on_closed);
	sd_bus_close_unref(TAKE_PTR(j->bus)); /* does not flush: that would block */
}

/* Delivered once sd-bus has returned from its callbacks. */
static void finish(struct scope_job *j, int result, const char *why)
{
	if (j->finished)
		return;
	j->finished = true;
	j->result = result;
	replace_str(&j->why, why ? why : "");
}

static void deliver(struct scope_job *j)
{
	uv_poll_stop(&j->poll);
	uv_timer_stop(&j->deadline);
	j->cb(j->result, j->why, j->arg);
	scope_cancel(j);
}

static void finish_with_error(struct scope_job *j, const sd_bus_error *error)
{
	_cleanup_free_ char *why =
		xasprintf("systemd refuses: %s", error->message ? error->message : error->name);
	int r = -sd_bus_error_get_errno(error);

	if (sd_bus_error_has_name(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
		r = -EACCES;
	if (r == -ETIMEDOUT) /* sd-bus's word for a bus that hung up as well */
		r = -ECONNRESET;
	finish(j, r < 0 ? r : -EIO, why);
}

/* ---- the bus in the loop ---- */

static void on_readable(uv_poll_t *poll, int status, int events);

static int watch(struct scope_job *j)
{
	int events = sd_bus_get_events(j->bus), wanted = 0;

	if (events < 0)
		return events;
	if (events & POLLIN)
		wanted |= UV_READABLE;
	if (events & POLLOUT)
		wanted |= UV_WRITABLE;
	return uv_poll_start(&j->poll, wanted | UV_DISCONNECT, on_readable);
}

static void on_readable(uv_poll_t *poll, _unused_ int status, _unused_ int events)
{
	struct scope_job *j = poll->data;
	int r = 1;

	while (!j->finished && r > 0)
		r = sd_bus_process(j->bus, NULL);
	if (r >= 0 && !j->finished)
		r = watch(j);
	if (r < 0)
		finish(j, r, strerror(-r));
	if (j->finished)
		deliver(j);
}

static void on_deadline(uv_timer_t *t)
{
	struct scope_job *j = t->data;

	finish(j, -ETIMEDOUT, "systemd has not answered in time");
	deliver(j);
}

/* NULL, and why, with *r. */
static struct scope_job *open_job(uv_loop_t *loop, bool user, uint64_t timeout_ms, scope_cb cb,
	void *arg, int *r, struct err *e)
{
	struct scope_job *j;
	sd_bus *bus = NULL;

	*r = user ? sd_bus_open_user(&bus) : sd_bus_open_system(&bus);
	if (*r < 0) {
		err_set_errno(e, *r, "cannot connect to the %s bus", user ? "user's" : "system");
		return NULL;
	}
	j = xcalloc(1, sizeof(*j));
	*r = uv_poll_init(loop, &j->poll, sd_bus_get_fd(bus));
	if (*r < 0) {
		err_set_errno(e, *r, "cannot watch the bus");
		sd_bus_close_unref(bus);
		free(j);
		return NULL;
	}
	uv_timer_init(loop, &j->deadline);
	j->poll.data = j->deadline.data = j;
	j->n_handles = 2;
	j->bus = bus;
	j->timeout_ms = timeout_ms;
	j->cb = cb;
	j->arg = arg;
	return j;
}

/* Everything is queued: from here on the loop carries it. */
static int begin(struct scope_job *j, int r, struct scope_job **out, struct err *e)
{
	if (r >= 0)
		r = watch(j);
	if (r < 0) {
		scope_cancel(j);
		return err_set_errno(e, r, "cannot ask systemd");
	}
	uv_timer_start(&j->deadline, on_deadline, j->timeout_ms, 0);
	*out = j;
	return 0;
}

/* ---- a transient scope ---- */

/* "uoss": id, job, unit, result. */
static int on_job_removed(sd_bus_message *m, void *arg, _unused_ sd_bus_error *error)
{
	struct scope_job *j = arg;
	const char *job, *unit, *result;
	uint32_t id;

	if (sd_bus_message_read(m, "uoss", &id, &job, &unit, &result) < 0 || !j->job ||
		!streq(job, j->job))
		return 0;
	if (streq(result, "done")) {
		finish(j, 0, NULL);
	} else {
		_cleanup_free_ char *why = xasprintf("systemd's job for %s: %s", unit, result);

		finish(j, -EIO, why);
	}
	return 0;
}

static int on_started(sd_bus_message *m, void *arg, _unused_ sd_bus_error *error)
{
	struct scope_job *j = arg;
	const sd_bus_error *refusal = sd_bus_message_get_error(m);
	const char *job;

	if (refusal && j->plain &&
		sd_bus_error_has_name(refusal, SD_BUS_ERROR_PROPERTY_READ_ONLY)) {
		int r = sd_bus_call_async(j->bus, NULL, j->plain, on_started, j, 0);

		sd_bus_message_unref(TAKE_PTR(j->plain));
		if (r < 0)
			finish(j, r, strerror(-r));
	} else if (refusal) {
		finish_with_error(j, refusal);
	} else if (sd_bus_message_read(m, "o", &job) < 0) {
		finish(j, -EBADMSG, "systemd's answer is not understood");
	} else {
		replace_str(&j->job, job);
	}
	return 0;
}

static int append_pids(sd_bus_message *m, const pid_t *pids, size_t n)
{
	int r = sd_bus_message_open_container(m, 'r', "sv");

	_Static_assert(sizeof(pid_t) == sizeof(uint32_t), "PIDs are sent as they are");
	if (r >= 0)
		r = sd_bus_message_append(m, "s", "PIDs");
	if (r >= 0)
		r = sd_bus_message_open_container(m, 'v', "au");
	if (r >= 0)
		r = sd_bus_message_append_array(m, 'u', pids, n * sizeof(*pids));
	if (r >= 0)
		r = sd_bus_message_close_container(m);
	return r < 0 ? r : sd_bus_message_close_container(m);
}

/* Ordered before our own unit, it is stopped after us; part of it, it is stopped with us, also when
 * we crashed, and yet not restarted with us: a scope cannot be. */
static int append_bond(sd_bus_message *m, const char *unit)
{
	int r = sd_bus_message_append(m, "(sv)", "PartOf", "as", 1, unit);

	return r < 0 ? r : sd_bus_message_append(m, "(sv)", "Before", "as", 1, unit);
}

/* OOMPolicy is known to scopes since systemd 253, where it is "stop" otherwise: a race with us, who
 * stop the others anyway, and then say why. */
static int append_properties(sd_bus_message *m, const struct scope_request *rq, bool oom_policy)
{
	int r = append_pids(m, rq->pids, rq->n_pids);

	if (r >= 0)
		r = sd_bus_message_append(m, "(sv)(sv)(sv)(sv)", "Description", "s",
			rq->description, "Slice", "s", rq->slice, "CollectMode", "s",
			"inactive-or-failed", "TasksMax", "t", UINT64_MAX);
	if (r >= 0 && rq->part_of)
		r = append_bond(m, rq->part_of);
	if (r >= 0 && rq->memory_max)
		r = sd_bus_message_append(m, "(sv)", "MemoryMax", "t", rq->memory_max);
	if (r >= 0 && rq->cpu_percent)
		r = sd_bus_message_append(
			m, "(sv)", "CPUQuotaPerSecUSec", "t", rq->cpu_percent * USEC_SEC / 100);
	if (r >= 0 && oom_policy)
		r = sd_bus_message_append(m, "(sv)", "OOMPolicy", "s", "continue");
	return r;
}

static int start_message(
	sd_bus *bus, const struct scope_request *rq, bool oom_policy, sd_bus_message **m)
{
	int r = sd_bus_message_new_method_call(
		bus, m, SYSTEMD, OBJECT, MANAGER, "StartTransientUnit");

	if (r >= 0)
		r = sd_bus_message_append(*m, "ss", rq->name, "fail");
	if (r >= 0)
		r = sd_bus_message_open_container(*m, 'a', "(sv)");
	if (r >= 0)
		r = append_properties(*m, rq, oom_policy);
	if (r >= 0)
		r = sd_bus_message_close_container(*m);
	if (r >= 0)
		r = sd_bus_message_append(*m, "a(sa(sv))", 0);
	return r;
}

static int on_subscribed(sd_bus_message *m, void *arg, _unused_ sd_bus_error *error)
{
	const sd_bus_error *refusal = sd_bus_message_get_error(m);

	if (refusal)
		finish_with_error(arg, refusal);
	return 0;
}

int scope_start(uv_loop_t *loop, const struct scope_request *rq, uint64_t timeout_ms, scope_cb cb,
	void *arg, struct scope_job **out, struct err *e)
{
	sd_bus_message *m = NULL;
	int r;
	struct scope_job *j = open_job(loop, rq->user, timeout_ms, cb, arg, &r, e);

	if (!j)
		return r;
	/* In one go: the bus keeps the order, so no end of a job is missed. */
	r = sd_bus_match_signal_async(j->bus, NULL, SYSTEMD, OBJECT, MANAGER, "JobRemoved",
		on_job_removed, on_subscribed, j);
	if (r >= 0)
		r = sd_bus_call_method_async(j->bus, NULL, SYSTEMD, OBJECT, MANAGER, "Subscribe",
			on_subscribed, j, NULL);
	if (r >= 0)
		r = start_message(j->bus, rq, false, &j->plain);
	if (r >= 0)
		r = start_message(j->bus, rq, true, &m);
	if (r >= 0)
		r = sd_bus_call_async(j->bus, NULL, m, on_started, j, 0);
	sd_bus_message_unref(m);
	return begin(j, r, out, e);
}

/* ---- a delegated unit ---- */

static int on_attached(sd_bus_message *m, void *arg, _unused_ sd_bus_error *error)
{
	const sd_bus_error *refusal = sd_bus_message_get_error(m);

	if (refusal)
		finish_with_error(arg, refusal);
	else
		finish(arg, 0, NULL);
	return 0;
}

int scope_attach(uv_loop_t *loop, const char *unit, const char *subgroup, const pid_t *pids,
	size_t n_pids, uint64_t timeout_ms, scope_cb cb, void *arg, struct scope_job **out,
	struct err *e)
{
	sd_bus_message *m = NULL;
	int r;
	struct scope_job *j = open_job(loop, false, timeout_ms, cb, arg, &r, e);

	if (!j)
		return r;
	r = sd_bus_message_new_method_call(
		j->bus, &m, SYSTEMD, OBJECT, MANAGER, "AttachProcessesToUnit");
	if (r >= 0)
		r = sd_bus_message_append(m, "ss", unit, subgroup);
	if (r >= 0)
		r = sd_bus_message_append_array(m, 'u', pids, n_pids * sizeof(*pids));
	if (r >= 0)
		r = sd_bus_call_async(j->bus, NULL, m, on_attached, j, 0);
	sd_bus_message_unref(m);
	return begin(j, r, out, e);
}

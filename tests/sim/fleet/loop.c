/* The daemon's event loop, clocks and randomness, and the world's list of what comes next. What
 * libuv does in a turn is done in its order (uv_run() of 1.44): timers, idle, prepare, poll, check,
 * closing. Only what core and drv/awake use is here. */
#include "world.h"

#include <assert.h>
#include <errno.h>
#include <time.h>

#define EPOCH_MS UINT64_C(1790000000000)

/* ---- the world's events ---- */

struct wevent {
	uint64_t at, seq;
	world_fn fn;
	uint64_t a, b;
};

static struct {
	struct wevent *v; /* a heap */
	size_t n, cap;
	uint64_t seq;
} events;

static bool earlier(size_t i, size_t k)
{
	const struct wevent *x = &events.v[i], *y = &events.v[k];

	return x->at != y->at ? x->at < y->at : x->seq < y->seq;
}

static void swap(size_t i, size_t k)
{
	struct wevent t = events.v[i];

	events.v[i] = events.v[k];
	events.v[k] = t;
}

void world_at(uint64_t at, world_fn fn, uint64_t a, uint64_t b)
{
	size_t i = events.n;

	if (events.n == events.cap) {
		events.cap = events.cap ? 2 * events.cap : 256;
		events.v = xreallocarray(events.v, events.cap, sizeof(*events.v));
	}
	events.v[events.n++] = (struct wevent){MAX(at, w.now), events.seq++, fn, a, b};
	for (; i && earlier(i, (i - 1) / 2); i = (i - 1) / 2)
		swap(i, (i - 1) / 2);
}

static struct wevent take_event(void)
{
	struct wevent first = events.v[0];
	size_t i = 0;

	events.v[0] = events.v[--events.n];
	for (;;) {
		size_t k = 2 * i + 1;

		if (k >= events.n)
			break;
		if (k + 1 < events.n && earlier(k + 1, k))
			k++;
		if (!earlier(k, i))
			break;
		swap(i, k);
		i = k;
	}
	return first;
}

/* What is due happens. It never calls the daemon: that hears of it in its loop. */
static void happen(uint64_t until)
{
	while (events.n && events.v[0].at <= until) {
		struct wevent e = take_event();

		w.now = MAX(w.now, e.at);
		e.fn(e.a, e.b);
	}
}

void world_until(uint64_t at)
{
	happen(at);
	w.now = MAX(w.now, at);
}

uint64_t hash_text(const char *s)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	while (*s)
		h = (h ^ (unsigned char)*s++) * UINT64_C(0x100000001b3);
	return h;
}

uint64_t noise(uint64_t a, uint64_t b, uint64_t below)
{
	uint64_t state = w.seed * 31 + a;

	state = rng_next(&state) ^ b;
	return below ? rng_next(&state) % below : 0;
}

/* ---- the daemon acts ---- */

void daemon_is_gone(bool replaced)
{
	w.crash_in = 0;
	w.alive = false;
	check_daemon_gone();
	http_forget();
	unnotify(NULL);
	ports_daemon_gone(replaced);
	gate_daemon_gone();
	fds_close_all();
	processes_daemon_gone(replaced);
}

static void die_now(void)
{
	vlog("the daemon (pid %d) is killed", (int)w.pid);
	w.crashes++;
	w.ghost = true;
	daemon_is_gone(false);
}

/* In mid-air: what it does from here on is nothing. */
void daemon_dies(void)
{
	if (w.alive)
		die_now();
}

void look(unsigned us)
{
	if (w.ghost || !w.alive)
		return;
	w.now += us;
	happen(w.now);
}

bool effect(unsigned us)
{
	if (w.ghost)
		return false;
	if (!w.alive)
		return true; /* a client, before there is a daemon: the test itself */
	w.effects++;
	look(us);
	if (w.crash_in && --w.crash_in == 0)
		die_now();
	return !w.ghost;
}

bool fault_is_on(enum fault f)
{
	return !w.peace && w.faults[f].count && w.now <= w.faults[f].until;
}

int fault(enum fault f)
{
	if (!fault_is_on(f))
		return 0;
	if (w.faults[f].skip) {
		w.faults[f].skip--;
		return 0;
	}
	w.faults[f].count--;
	w.faults_hit++;
	vlog("fault %d: %s", (int)f, strerror(w.faults[f].err));
	return w.faults[f].err;
}

/* ---- what the daemon is told ---- */

struct note {
	struct note *next;
	void (*fn)(void *arg);
	void *arg;
};

static struct note *notes, **notes_end = &notes;

void notify(void (*fn)(void *arg), void *arg)
{
	struct note *n = xcalloc(1, sizeof(*n));

	*n = (struct note){NULL, fn, arg};
	*notes_end = n;
	notes_end = &n->next;
}

/* NULL: all. */
void unnotify(const void *arg)
{
	struct note **at = &notes;

	while (*at) {
		struct note *n = *at;

		if (arg && n->arg != arg) {
			at = &n->next;
			continue;
		}
		*at = n->next;
		free(n);
	}
	notes_end = at;
}

static void tell(void)
{
	size_t n = 0;

	for (struct note *i = notes; i; i = i->next)
		n++;
	while (n-- && notes && !w.ghost) {
		struct note *i = notes;

		notes = i->next;
		if (!notes)
			notes_end = &notes;
		i->fn(i->arg);
		free(i);
	}
}

/* ---- libuv ---- */

#define MAX_HANDLES 256

static struct {
	uv_timer_t *timers[MAX_HANDLES];
	uv_idle_t *idles[8];
	uv_prepare_t *prepares[8];
	uv_check_t *checks[8];
	uv_handle_t *closing[MAX_HANDLES];
	size_t n_timers, n_idles, n_prepares, n_checks, n_closing;
	uint64_t time, start_id;
} l;

#define DROP(list, n, h)                                                                           \
	do {                                                                                       \
		for (size_t i_ = 0; i_ < (n); i_++)                                                \
			if ((void *)(list)[i_] == (void *)(h)) {                                   \
				memmove(&(list)[i_], &(list)[i_ + 1],                              \
					((n)-i_ - 1) * sizeof((list)[0]));                         \
				(n)--;                                                             \
				break;                                                             \
			}                                                                          \
	} while (0)

#define HAS(list, n, h)                                                                            \
	({                                                                                         \
		bool has_ = false;                                                                 \
		for (size_t i_ = 0; i_ < (n); i_++)                                                \
			has_ |= (void *)(list)[i_] == (const void *)(h);                           \
		has_;                                                                              \
	})

#define ADD(list, n, h)                                                                            \
	do {                                                                                       \
		assert((n) < ARRAY_SIZE(list));                                                    \
		(list)[(n)++] = (h);                                                               \
	} while (0)

void uv_update_time(uv_loop_t *loop)
{
	(void)loop;
	l.time = w.now / MS;
}

uint64_t uv_now(const uv_loop_t *loop)
{
	(void)loop;
	return l.time;
}

uint64_t uv_hrtime(void)
{
	look(1);
	return (w.now - w.booted) * 1000;
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *t)
{
	*t = (uv_timer_t){.data = t->data, .loop = loop, .type = UV_TIMER};
	return 0;
}

int uv_timer_stop(uv_timer_t *t)
{
	DROP(l.timers, l.n_timers, t);
	return 0;
}

int uv_timer_start(uv_timer_t *t, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
	if (HAS(l.closing, l.n_closing, t))
		return UV_EINVAL;
	uv_timer_stop(t);
	t->timer_cb = cb;
	t->timeout = l.time + timeout;
	t->repeat = repeat;
	t->start_id = l.start_id++;
	ADD(l.timers, l.n_timers, t);
	return 0;
}

int uv_idle_init(uv_loop_t *loop, uv_idle_t *h)
{
	*h = (uv_idle_t){.data = h->data, .loop = loop, .type = UV_IDLE};
	return 0;
}

int uv_idle_start(uv_idle_t *h, uv_idle_cb cb)
{
	h->idle_cb = cb;
	if (!HAS(l.idles, l.n_idles, h))
		ADD(l.idles, l.n_idles, h);
	return 0;
}

int uv_idle_stop(uv_idle_t *h)
{
	DROP(l.idles, l.n_idles, h);
	return 0;
}

int uv_prepare_init(uv_loop_t *loop, uv_prepare_t *h)
{
	*h = (uv_prepare_t){.data = h->data, .loop = loop, .type = UV_PREPARE};
	return 0;
}

int uv_prepare_start(uv_prepare_t *h, uv_prepare_cb cb)
{
	h->prepare_cb = cb;
	ADD(l.prepares, l.n_prepares, h);
	return 0;
}

int uv_check_init(uv_loop_t *loop, uv_check_t *h)
{
	*h = (uv_check_t){.data = h->data, .loop = loop, .type = UV_CHECK};
	return 0;
}

int uv_check_start(uv_check_t *h, uv_check_cb cb)
{
	h->check_cb = cb;
	ADD(l.checks, l.n_checks, h);
	return 0;
}

void uv_unref(uv_handle_t *h)
{
	(void)h;
}

int uv_is_active(const uv_handle_t *h)
{
	return HAS(l.timers, l.n_timers, h) || HAS(l.idles, l.n_idles, h);
}

void uv_close(uv_handle_t *h, uv_close_cb cb)
{
	invariant("handles", !HAS(l.closing, l.n_closing, h), "a handle is closed twice");
	DROP(l.timers, l.n_timers, h);
	DROP(l.idles, l.n_idles, h);
	DROP(l.prepares, l.n_prepares, h);
	DROP(l.checks, l.n_checks, h);
	h->close_cb = cb;
	ADD(l.closing, l.n_closing, h);
}

static uv_timer_t *first_timer(void)
{
	uv_timer_t *first = NULL;

	for (size_t i = 0; i < l.n_timers; i++) {
		uv_timer_t *t = l.timers[i];

		if (!first || t->timeout < first->timeout ||
			(t->timeout == first->timeout && t->start_id < first->start_id))
			first = t;
	}
	return first;
}

int uv_backend_timeout(const uv_loop_t *loop)
{
	const uv_timer_t *t = first_timer();

	(void)loop;
	if (l.n_idles || l.n_closing)
		return 0;
	if (!t)
		return -1;
	return t->timeout <= l.time ? 0 : (int)MIN(t->timeout - l.time, (uint64_t)INT32_MAX);
}

static void run_timers(void)
{
	uv_timer_t *t;

	while (!w.ghost && (t = first_timer()) && t->timeout <= l.time) {
		uv_timer_stop(t);
		if (t->repeat)
			uv_timer_start(t, t->timer_cb, t->repeat, t->repeat);
		t->timer_cb(t);
	}
}

/* Until there is something to be told, or the time is over. */
static void poll_world(int timeout_ms)
{
	uint64_t until = timeout_ms < 0 ? UINT64_MAX : w.now + (uint64_t)timeout_ms * MS;

	if (w.ghost)
		return;
	while (!notes && events.n && events.v[0].at <= until)
		happen(events.v[0].at);
	if (!notes && until != UINT64_MAX)
		w.now = MAX(w.now, until);
	if (w.frozen_until > w.now) { /* it cannot run */
		/* As drv/awake: what it would have waited anyway counts. Never 0. */
		w.frozen += 1 + w.frozen_until - MIN(MAX(w.now, until), w.frozen_until);
		world_until(w.frozen_until);
	}
	uv_update_time(NULL);
	tell();
}

void world_forget_events(void)
{
	events.n = events.seq = 0;
	unnotify(NULL);
	memset(&l, 0, sizeof(l));
}

void loop_close(void)
{
	while (l.n_closing) {
		uv_handle_t *h = l.closing[--l.n_closing];

		if (h->close_cb)
			h->close_cb(h);
	}
}

bool loop_is_empty(void)
{
	return !l.n_timers && !l.n_idles && !l.n_prepares && !l.n_checks && !l.n_closing;
}

void loop_turn(void)
{
	w.turns++;
	look(5);
	uv_update_time(NULL);
	run_timers();
	for (size_t i = l.n_idles; i-- > 0 && !w.ghost;)
		l.idles[i]->idle_cb(l.idles[i]);
	for (size_t i = 0; i < l.n_prepares && !w.ghost; i++)
		l.prepares[i]->prepare_cb(l.prepares[i]);
	poll_world(uv_backend_timeout(NULL));
	for (size_t i = 0; i < l.n_checks && !w.ghost; i++)
		l.checks[i]->check_cb(l.checks[i]);
	if (!w.ghost)
		loop_close();
}

/* ---- clocks and the like, of libc ---- */

static void to_timespec(uint64_t us, struct timespec *ts)
{
	ts->tv_sec = (time_t)(us / SEC);
	ts->tv_nsec = (long)(us % SEC * 1000);
}

uint64_t monotonic_ms(void)
{
	return (w.now - w.booted + SEC) / MS;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
	uint64_t us = w.now - w.booted + SEC;

	if (id == CLOCK_REALTIME)
		us = w.now;
	if (id == CLOCK_BOOTTIME || id == CLOCK_REALTIME)
		us += w.slept;
	if (id == CLOCK_REALTIME)
		us += EPOCH_MS * MS + (uint64_t)(w.wall_skew_ms * (int64_t)MS);
	to_timespec(us, ts);
	return 0;
}

time_t __wrap_time(time_t *t);
time_t __wrap_time(time_t *t)
{
	struct timespec ts;

	__wrap_clock_gettime(CLOCK_REALTIME, &ts);
	if (t)
		*t = ts.tv_sec;
	return ts.tv_sec;
}

int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
	look(us);
	return 0;
}

/* Of a daemon: names and jitter. */
ssize_t __wrap_getrandom(void *buf, size_t n, unsigned flags);
ssize_t __wrap_getrandom(void *buf, size_t n, unsigned flags)
{
	uint64_t v;

	(void)flags;
	for (size_t i = 0; i < n; i += sizeof(v)) {
		v = noise(hash_text("random"), w.now + i, UINT64_MAX);
		memcpy((char *)buf + i, &v, MIN(sizeof(v), n - i));
	}
	w.now++; /* never the same twice */
	return (ssize_t)n;
}

int __wrap_getloadavg(double *v, int n);
int __wrap_getloadavg(double *v, int n)
{
	for (int i = 0; i < n; i++)
		v[i] = 1;
	return n;
}

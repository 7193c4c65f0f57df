#include "cli/follow.h"

#include <errno.h>
#include <poll.h>

#include "base/clock.h"

#define PAUSE_MIN_MS 50
#define PAUSE_MAX_MS 1000
#define TURN_MS      200
/* A node that writes no end of line has its output shown in pieces of this. */
#define MAX_LINE (256u << 10)

/* ---- lines ---- */

static void keep(struct lines *l, const char *data, size_t n)
{
	if (l->len + n > l->cap) {
		l->cap = MAX(l->len + n, 2 * l->cap);
		l->part = xreallocarray(l->part, l->cap, 1);
	}
	memcpy(l->part + l->len, data, n);
	l->len += n;
}

void lines_add(struct lines *l, const char *data, size_t n,
	void (*line)(const char *text, size_t len, void *arg), void *arg)
{
	while (n) {
		const char *nl = memchr(data, '\n', n);
		size_t len = nl ? (size_t)(nl - data) : n;

		if (nl && !l->len) {
			line(data, len, arg);
		} else {
			keep(l, data, len);
			if (nl || l->len > MAX_LINE) {
				line(l->part, l->len, arg);
				l->len = 0;
			}
		}
		len += nl != NULL;
		data += len;
		n -= len;
	}
}

void lines_clear(struct lines *l)
{
	free(l->part);
	*l = (struct lines){0};
}

/* ---- going on ---- */

struct round {
	struct cli *cli;
	struct client *client;
	bool missed; /* that the daemon is gone was said */
};

static void on_data(const char *data, size_t n, void *arg)
{
	struct follow *f = arg;

	if (!f->greeted) {
		f->greeted = true;
		f->begin(f);
	}
	f->data(f, data, n);
}

static void ask(struct round *r, struct follow *f)
{
	_cleanup_free_ char *target = f->target(f);

	f->greeted = false;
	f->call = client_stream(r->client, target, on_data, f);
}

static void give_up(struct follow *f)
{
	f->over = true;
	f->code = call_complain(f->cli, f->call);
}

/* No answer, or one that says: not now. */
static bool may_pass(const struct call *call)
{
	return call->err.code != -EPROTO || call->status == 503;
}

/* Its request is done: what next? */
static void judge(struct round *r, struct follow *f)
{
	struct call *call = f->call;

	if (call->answered) {
		f->pause_ms = PAUSE_MIN_MS; /* ended, or cut off */
	} else if (!may_pass(call)) {
		give_up(f);
	} else {
		if (!r->missed)
			cli_say(r->cli, "%s; waiting for it",
				call->err.code == -ENOTCONN ? "h2ofleetd has gone"
							    : err_msg(&call->err));
		r->missed = true;
		f->pause_ms = MIN(2 * f->pause_ms, (unsigned)PAUSE_MAX_MS);
	}
	call_free(TAKE_PTR(f->call));
	f->retry_ms = clock_monotonic_ms() + f->pause_ms;
}

static void look(struct round *r, struct follow *f)
{
	if (f->call && f->call->answered) {
		if (!f->greeted) {
			f->greeted = true;
			f->begin(f);
		}
		if (r->missed)
			cli_say(r->cli, "h2ofleetd is there again");
		r->missed = false;
	}
	if (f->call && f->call->done)
		judge(r, f);
}

/* Waits for something to happen. */
static void turn(struct round *r, struct follow *const *all, size_t n)
{
	uint64_t now = clock_monotonic_ms(), wait = TURN_MS;
	bool asking = false;

	for (size_t i = 0; i < n; i++) {
		struct follow *f = all[i];

		if (f->over)
			continue;
		if (!f->call && now >= f->retry_ms)
			ask(r, f);
		else if (!f->call)
			wait = MIN(wait, f->retry_ms - now);
		asking |= f->call != NULL;
	}
	if (asking)
		client_turn(r->client, (int)wait);
	else if (!cli_interrupted())
		poll(NULL, 0, (int)wait); /* Ctrl-C ends it */
	for (size_t i = 0; i < n; i++)
		look(r, all[i]);
}

static bool all_over(struct follow *const *all, size_t n, int *code)
{
	*code = CLI_OK;
	for (size_t i = 0; i < n; i++) {
		if (!all[i]->over)
			return false;
		*code = cli_worse(*code, all[i]->code);
	}
	return true;
}

int follow_these(struct cli *cli, struct client *c, struct followed *all)
{
	struct round r = {.cli = cli, .client = c};
	int code;

	cli_catch_interrupt();
	while (!all_over(all->v, all->n, &code) && !cli_interrupted()) {
		for (size_t i = 0; i < all->n; i++) {
			all->v[i]->cli = cli;
			all->v[i]->pause_ms = MAX(all->v[i]->pause_ms, (unsigned)PAUSE_MIN_MS);
		}
		turn(&r, all->v, all->n);
		if (all->turned)
			all->turned(all, all->arg);
		if (fflush(cli->out) != 0)
			break; /* nobody reads it; said at the end */
	}
	for (size_t i = 0; i < all->n; i++)
		call_free(TAKE_PTR(all->v[i]->call));
	return cli_interrupted() ? CLI_INTERRUPTED : code;
}

int follow_all(struct cli *cli, struct client *c, struct follow **all, size_t n)
{
	struct followed some = {.v = all, .n = n};

	return follow_these(cli, c, &some);
}

#include "drv/reaper.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/log.h"
#include "base/util.h"
#include "drv/spawn.h"

/* The kernel shows one ended child at a time, the same until somebody has reaped it: where it is
 * one of ours, spawn.c is about to do that, and we look again. */
#define AGAIN_MS 20
/* In one turn of the loop; a fork bomb must not hold us up. */
#define MAX_AT_ONCE 256

struct reaper {
	uv_signal_t signal;
	uv_timer_t again;
	unsigned n_handles;
};

static void on_again(uv_timer_t *t);

static void look(struct reaper *r)
{
	for (int i = 0; i < MAX_AT_ONCE; i++) {
		siginfo_t si = {0};

		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG | WNOWAIT) < 0 || si.si_pid == 0)
			return;
		if (proc_is_watched(si.si_pid))
			break;
		if (waitid(P_PID, (id_t)si.si_pid, &si, WEXITED | WNOHANG) < 0)
			break;
		log_debug("reaped pid %d, which is none of ours", (int)si.si_pid);
	}
	uv_timer_start(&r->again, on_again, AGAIN_MS, 0);
}

static void on_again(uv_timer_t *t)
{
	look(t->data);
}

static void on_sigchld(uv_signal_t *s, int sig _unused_)
{
	look(s->data);
}

struct reaper *reaper_start(uv_loop_t *loop)
{
	struct reaper *r = xcalloc(1, sizeof(*r));

	uv_signal_init(loop, &r->signal);
	uv_timer_init(loop, &r->again);
	r->signal.data = r->again.data = r;
	r->n_handles = 2;
	uv_signal_start(&r->signal, on_sigchld, SIGCHLD);
	look(r); /* who ended before */
	return r;
}

static void on_closed(uv_handle_t *h)
{
	struct reaper *r = h->data;

	if (--r->n_handles == 0)
		free(r);
}

void reaper_stop(struct reaper *r)
{
	if (!r)
		return;
	uv_signal_stop(&r->signal);
	uv_close((uv_handle_t *)&r->signal, on_closed);
	uv_close((uv_handle_t *)&r->again, on_closed);
}

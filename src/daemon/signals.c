#include <signal.h>

#include "base/log.h"
#include "daemon/daemon.h"

static const int numbers[N_SIGNALS] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};

static void on_signal(uv_signal_t *handle, int sig)
{
	struct daemon *d = handle->data;

	if (sig == SIGHUP && !d->from_terminal) {
		log_notice("SIGHUP: reading the configuration again");
		daemon_reload_and_log(d);
		return;
	}
	if (sig == SIGUSR1) {
		log_notice("SIGUSR1: replacing the daemon's image");
		reexec_begin(d);
		return;
	}
	if (sig == SIGUSR2) {
		daemon_detach(d);
		return;
	}
	log_notice("SIG%s: %s", sigabbrev_np(sig),
		d->ending ? "killing all clouds at once" : "stopping all clouds");
	daemon_end(d);
}

void signals_watch(struct daemon *d)
{
	sigset_t none;

	for (size_t i = 0; i < N_SIGNALS; i++) {
		uv_signal_init(&d->loop, &d->signals[i]);
		d->signals[i].data = d;
		uv_signal_start(&d->signals[i], on_signal, numbers[i]);
	}
	sigemptyset(&none); /* what waited over a reexec comes now */
	sigprocmask(SIG_SETMASK, &none, NULL);
}

void signals_close(struct daemon *d)
{
	for (size_t i = 0; i < N_SIGNALS; i++)
		uv_close((uv_handle_t *)&d->signals[i], NULL);
}

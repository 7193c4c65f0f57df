/* The daemon replaces its own image: the same process, the same children, the same listening
 * socket.
 *
 * The new image is tried first: `h2ofleetd ... --check-state` must find the configuration and the
 * state files usable. Then states are saved and the descriptors that cannot be made anew (lock,
 * control socket, held ports) are handed over. Everything else the new image does as any daemon
 * that follows another: it adopts. */
#include <errno.h>
#include <stdio.h>

#include "base/handover.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "drv/activation.h"
#include "drv/command.h"
#include "drv/spawn.h"

#define CHECK_MS 20000

void reexec_init(struct daemon *d)
{
	const char *count = handover_word("reexecs");
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	d->reexec.path = xstrndup(path, n > 0 ? (size_t)n : 0);
	d->reexec.count = count ? (unsigned)atoi(count) + 1 : 0;
}

void reexec_clear(struct daemon *d)
{
	if (d->reexec.check)
		command_cancel(TAKE_PTR(d->reexec.check));
	free(d->reexec.path);
	free(d->reexec.error);
}

static void failed(struct daemon *d, const char *fmt, ...) _printf_(2, 3);

static void failed(struct daemon *d, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	free(d->reexec.error);
	d->reexec.error = xvasprintf(fmt, ap);
	va_end(ap);
	log_error("reexec: %s; goes on as it was", d->reexec.error);
	fleet_event(d->fleet, "reexec-failed", NULL, -1, NULL, "%s", d->reexec.error);
}

static void become(struct daemon *d)
{
	_cleanup_free_ char *count = xasprintf("%u", d->reexec.count);
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r;

	r = fleet_hand_over(d->fleet, &e);
	if (r < 0) {
		failed(d, "%s", err_msg(&e));
		return;
	}
	fleet_event(d->fleet, "daemon-reexec", NULL, -1, NULL, "h2ofleetd replaces itself by %s",
		d->reexec.path);
	api_hand_over(d->api);
	activation_hand_over();
	spawn_hand_over_limits();
	handover_add_word("reexecs", count);
	r = handover_exec(d->reexec.path, d->options->argv);
	failed(d, "cannot execute %s: %s", d->reexec.path, strerror(-r));
}

static void on_checked(int exit_code, int exec_errno, const char *output, void *arg)
{
	struct daemon *d = arg;
	_cleanup_free_ char *first = xstrndup(output, strcspn(output, "\n"));

	d->reexec.check = NULL;
	if (d->ending)
		return;
	if (exec_errno)
		failed(d, "cannot execute %s: %s", d->reexec.path, strerror(exec_errno));
	else if (exit_code < 0)
		failed(d, "%s --check-state did not end in time", d->reexec.path);
	else if (exit_code > 0)
		failed(d, "%s cannot go on from here: %s", d->reexec.path,
			*first ? first : "it says nothing");
	else
		become(d);
}

int reexec_begin(struct daemon *d)
{
	_cleanup_free_ char *file = d->options->file ? realpath(d->options->file, NULL) : NULL;
	_cleanup_free_ char *check =
		xasprintf("--check-state=%s", fleet_conf(d->fleet)->fleet.state_dir);
	char *argv[] = {d->reexec.path, check, file ? (char *)"--config" : NULL, file, NULL};
	int r;

	if (d->ending)
		return -ESHUTDOWN;
	if (d->reexec.check)
		return 0;
	free(TAKE_PTR(d->reexec.error));
	r = command_run(&d->loop, argv, environ, CHECK_MS, on_checked, d, &d->reexec.check);
	if (r < 0)
		failed(d, "cannot run %s --check-state: %s", d->reexec.path, strerror(-r));
	return r;
}

int reexec_answer(bool begin, struct reexec_status *out, void *arg)
{
	struct daemon *d = arg;
	int r = begin ? reexec_begin(d) : 0;

	*out = (struct reexec_status){
		.count = d->reexec.count, .under_way = d->reexec.check, .error = d->reexec.error};
	return r;
}

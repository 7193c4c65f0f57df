#include "drv/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "drv/spawn.h"

#define OUTPUT_MAX    65536
#define KILL_GRACE_MS 2000
#define HELD_UP_MS    500
#define GRACE_MS      1000
/* A pipe holds 64 KiB, so this empties it, whatever a grandchild still writes. */
#define DRAIN_READS 32

struct command {
	uv_poll_t poll;   /* on the pipe */
	uv_timer_t timer; /* the timeout, then KILL_GRACE_MS */
	unsigned n_handles;
	struct proc *proc; /* owned */
	int fd;            /* our end of the pipe */
	struct strbuf output;
	uint64_t due_ms; /* the timer, monotonic */
	bool timed_out;
	command_cb cb; /* NULL once it was called or the command was cancelled */
	void *arg;
};

static void on_closed(uv_handle_t *handle)
{
	struct command *c = handle->data;

	if (--c->n_handles)
		return;
	closep(&c->fd);
	strbuf_free(&c->output);
	free(c);
}

static void command_close(struct command *c)
{
	proc_free(TAKE_PTR(c->proc));
	uv_close((uv_handle_t *)&c->poll, on_closed);
	uv_close((uv_handle_t *)&c->timer, on_closed);
}

static void command_report(struct command *c, int code, int exec_errno)
{
	command_cb cb = TAKE_PTR(c->cb);

	for (size_t i = 0; i < c->output.len; i++)
		if (c->output.s[i] == '\0')
			c->output.s[i] = ' ';
	if (cb)
		cb(code, exec_errno, strbuf_str(&c->output), c->arg);
}

/* Reads once; what is over the limit is thrown away, for the command is not to block on us.
 * False at the end of file or when nothing is there. */
static bool read_some(struct command *c, bool *eof)
{
	char buf[4096];
	ssize_t n = read(c->fd, buf, sizeof(buf));

	*eof = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
	if (n > 0)
		strbuf_add(&c->output, buf, MIN((size_t)n, OUTPUT_MAX - c->output.len));
	return n > 0 || (n < 0 && errno == EINTR);
}

static void on_readable(uv_poll_t *poll, _unused_ int status, _unused_ int events)
{
	struct command *c = poll->data;
	bool eof;

	read_some(c, &eof);
	if (eof)
		uv_poll_stop(poll); /* its exit is still to come */
}

static void on_proc_exit(_unused_ struct proc *p, const struct proc_exit *x, void *arg)
{
	struct command *c = arg;
	bool eof;

	for (int i = 0; i < DRAIN_READS && read_some(c, &eof); i++)
		continue;
	if (x->exec_errno)
		command_report(c, -1, x->exec_errno);
	else
		command_report(c, !x->known || x->signal || c->timed_out ? -1 : x->code, 0);
	command_close(c);
}

static void on_timeout(uv_timer_t *timer);

static void start_timer(struct command *c, uint64_t ms)
{
	c->due_ms = clock_monotonic_ms() + ms;
	uv_update_time(c->timer.loop);
	uv_timer_start(&c->timer, on_timeout, ms, 0);
}

static void on_timeout(uv_timer_t *timer)
{
	struct command *c = timer->data;

	/* So late we were stopped, or could not run: what it has printed may lie unread. */
	if (clock_monotonic_ms() >= c->due_ms + HELD_UP_MS) {
		start_timer(c, GRACE_MS);
		return;
	}
	if (c->timed_out) {
		/* Not even SIGKILL helped. It is still reaped whenever it goes. */
		command_report(c, -1, 0);
		return;
	}
	c->timed_out = true;
	proc_kill_group(c->proc);
	start_timer(c, KILL_GRACE_MS);
}

int command_run(uv_loop_t *loop, char *const *argv, char *const *env, uint64_t timeout_ms,
	command_cb cb, void *arg, struct command **out)
{
	struct spawn_request rq = {.argv = argv, .env = env};
	struct command *c;
	int fds[2], r;

	*out = NULL;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	c = xcalloc(1, sizeof(*c));
	c->fd = fds[0];
	c->cb = cb;
	c->arg = arg;
	rq.output_fd = fds[1];
	r = uv_poll_init(loop, &c->poll, c->fd); /* makes it non-blocking, too */
	if (r < 0) {
		close(fds[0]);
		close(fds[1]);
		free(c);
		return r;
	}
	uv_timer_init(loop, &c->timer);
	c->poll.data = c->timer.data = c;
	c->n_handles = 2;
	r = proc_spawn(loop, &rq, on_proc_exit, c, &c->proc, NULL);
	close(fds[1]);
	if (r < 0) {
		command_close(c);
		return r;
	}
	uv_poll_start(&c->poll, UV_READABLE, on_readable);
	start_timer(c, timeout_ms);
	proc_release(c->proc);
	*out = c;
	return 0;
}

void command_cancel(struct command *c)
{
	c->cb = NULL;
	uv_timer_stop(&c->timer);
	proc_kill_group(c->proc); /* on_proc_exit() does the rest */
}

void command_end(struct command *c, uint64_t grace_ms)
{
	proc_signal(c->proc, SIGTERM);
	start_timer(c, grace_ms);
}

void command_end_alone(struct command *c, uint64_t grace_ms)
{
	c->cb = NULL;
	command_end(c, grace_ms);
}

const char *command_output(const struct command *c)
{
	return strbuf_str(&c->output);
}

char *command_own_program(void)
{
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	if (n > 0) {
		path[n] = '\0';
		if (access(path, X_OK) == 0)
			return xstrdup(path);
	}
	return xstrdup("/proc/self/exe");
}

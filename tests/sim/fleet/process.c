/* Processes: drv/spawn.h, drv/command.h, drv/procinfo.h and what of drv/machine.h is about them, on
 * a table of simulated processes. A child waits until it is released; an end is told by the loop,
 * once; who is not our child leaves no status (unless this kernel tells it); numbers are used again
 * soon. */
#include "world.h"

#include <errno.h>

#include "drv/command.h"
#include "drv/machine.h"
#include "drv/procinfo.h"
#include "drv/spawn.h"

#define FIRST_PID 300
#define LAST_PID  420 /* numbers come again */
#define OUR_NAME  "h2ofleetd"

struct proc {
	struct vproc *v;
	pid_t pid;
	uint64_t ticks;
	proc_exit_cb cb;
	void *arg;
	bool over; /* its end was reported */
};

/* ---- the table ---- */

struct vproc *vproc_find(pid_t pid)
{
	for (struct vproc *p = w.procs; p; p = p->next)
		if (p->pid == pid && p->state != V_GONE)
			return p;
	return NULL;
}

bool vproc_runs(const struct vproc *p)
{
	return p->state == V_WAITING || p->state == V_RUNNING;
}

uint64_t vproc_id(const struct vproc *p)
{
	return (uint64_t)p->pid << 40 | (p->ticks & 0xffffffffff);
}

struct vproc *vproc_by_id(uint64_t id)
{
	struct vproc *p = vproc_find((pid_t)(id >> 40));

	return p && vproc_id(p) == id ? p : NULL;
}

static pid_t new_pid(void)
{
	do {
		w.next_pid = w.next_pid >= LAST_PID ? FIRST_PID : w.next_pid + 1;
	} while (vproc_find(w.next_pid) || w.next_pid == w.pid);
	return w.next_pid;
}

struct vproc *vproc_new(enum vkind kind, const char *token)
{
	struct vproc *p = xcalloc(1, sizeof(*p));

	p->kind = kind;
	p->pid = new_pid();
	p->ticks = w.now / (10 * MS) + 1;
	p->state = V_RUNNING;
	p->token = xstrdup_null(token);
	p->next = w.procs;
	w.procs = p;
	return p;
}

static void tell_end(void *arg)
{
	struct proc *h = arg;
	struct vproc *v = h->v;
	bool child = v->parent == w.image;
	struct proc_exit x = {.known = child || w.exit_known};

	if (x.known) {
		x.code = v->signal ? 0 : v->code;
		x.signal = v->signal;
		x.exec_errno = v->exec_failed ? ENOENT : 0;
	}
	v->told = true;
	v->state = V_GONE;
	v->watch = NULL;
	h->over = true;
	vlog("pid %d is reaped (%d, %d)", (int)v->pid, v->code, v->signal);
	h->cb(h, &x, h->arg);
}

void vproc_end(struct vproc *p, int code, int sig)
{
	if (!vproc_runs(p))
		return;
	vlog("pid %d ends (%s): %d, signal %d", (int)p->pid, p->token ? p->token : "-", code, sig);
	p->code = code;
	p->signal = sig;
	p->state = p->watch ? V_ZOMBIE : V_GONE; /* strangers' ends drv/reaper takes */
	port_leave(p);
	if (p->kind == V_NODE)
		h2o_gone(p, sig == 0 || sig == SIGTERM);
	if (p->gate)
		gate_gone(p);
	ofile_unref(TAKE_PTR(p->output));
	ofile_unref(TAKE_PTR(p->input));
	if (p->watch)
		notify(tell_end, p->watch);
}

void processes_reap(void)
{
	for (struct vproc *p = w.procs; p; p = p->next) {
		if (p->state != V_ZOMBIE || p->watch)
			continue;
		p->state = V_GONE;
		vlog("pid %d is reaped, whom nobody watches", (int)p->pid);
	}
}

static void free_vproc(struct vproc *p)
{
	h2o_free(&p->h2o);
	ofile_unref(p->output);
	ofile_unref(p->input);
	free(p->gate);
	free(p->token);
	free(p->cwd);
	free(p);
}

void processes_free(void)
{
	while (w.procs) {
		struct vproc *p = w.procs;

		w.procs = p->next;
		free_vproc(p);
	}
}

/* Who waits for it sees the end of the pipe, and exits; what it was executing goes on. Where it
 * `goes on` under its number (reexec), its children are its children still. */
void processes_daemon_gone(bool goes_on)
{
	for (struct vproc *p = w.procs; p; p = p->next) {
		if (p->watch)
			unnotify(p->watch);
		p->watch = NULL;
		if (p->state == V_WAITING) {
			p->state = V_GONE;
			vlog("pid %d was not released, and exits", (int)p->pid);
		}
		if (p->kind == V_COMMAND && vproc_runs(p)) {
			p->command = NULL;
			vproc_end(p, 0, SIGPIPE);
		}
		p->command = NULL;
		if (p->state == V_ZOMBIE && !goes_on)
			p->state = V_GONE;
		if (p->parent == w.image && !goes_on)
			p->parent = 0;
	}
}

/* The machine begins anew: only files are left. */
void processes_reboot(void)
{
	for (struct vproc *p = w.procs; p; p = p->next) {
		if (p->kind == V_STRANGER && p->token)
			continue; /* another fleet, which is back at once */
		vproc_end(p, 0, SIGKILL);
		p->state = V_GONE;
	}
	disk_remove(PERF_DIR); /* /tmp is empty again */
	disk_mkdirs(PERF_DIR);
	w.boot++;
	w.booted = w.now;
	w.slept = 0;
}

/* ---- signals ---- */

static void end_by(uint64_t id, uint64_t sig)
{
	struct vproc *p = vproc_by_id(id);

	if (!p || !vproc_runs(p))
		return;
	if (p->kind == V_NODE && sig == SIGTERM && p->h2o.paused_until > w.now) {
		world_at(p->h2o.paused_until + 10 * MS, end_by, id, sig);
		return;
	}
	if (sig == SIGTERM && p->kind == V_NODE)
		vproc_end(p, 143, 0);
	else
		vproc_end(p, 0, (int)sig);
}

void vproc_signal(struct vproc *p, int sig)
{
	uint64_t id = vproc_id(p);
	uint64_t wait = sig == SIGKILL ? noise(id, 1, 20) * MS : (100 + noise(id, 2, 400)) * MS;

	vlog("signal %d to pid %d (%s)", sig, (int)p->pid, p->token ? p->token : "-");
	if (sig == SIGQUIT && p->kind == V_NODE && p->output && !p->h2o.hung && !h2o_paused(p))
		inode_append(p->output->inode, "2026\nFull thread dump\nJNI global refs: 1\n");
	if (sig == SIGQUIT || (sig == SIGTERM && (p->ignores_term || p->h2o.hung)))
		return;
	if (p->kind == V_GATE && p->gate && p->gate->paused_until > w.now && sig == SIGTERM)
		return;
	if (p->kind == V_GATE && p->gate && sig == SIGKILL)
		p->gate->killed = true;
	if (p->stuck && sig == SIGKILL)
		wait += 15 * SEC; /* in the kernel */
	if (p->state == V_WAITING)
		wait = 0;
	world_at(w.now + wait, end_by, id, (uint64_t)sig);
}

/* ---- drv/spawn.h ---- */

static const char *token_in(char *const *env)
{
	for (; *env; env++)
		if (has_prefix(*env, "H2OFLEET_TOKEN="))
			return *env;
	return NULL;
}

static enum vkind kind_of(char *const *argv)
{
	return strstr(argv[0], "h2ofleet-gate") ? V_GATE : V_NODE;
}

static struct ofile *inherit(int fd)
{
	struct ofile *f = fd > 0 ? fd_file(fd) : NULL;

	if (f)
		f->refs++;
	return f;
}

static struct proc *watch(struct vproc *v, proc_exit_cb cb, void *arg)
{
	struct proc *h = xcalloc(1, sizeof(*h));

	*h = (struct proc){v, v->pid, v->ticks, cb, arg, false};
	v->watch = h;
	return h;
}

int proc_spawn(uv_loop_t *loop, const struct spawn_request *rq, proc_exit_cb cb, void *arg,
	struct proc **out, struct err *e)
{
	struct vproc *v;
	int err = fault(FAULT_FORK);

	(void)loop;
	if (err)
		return err_set_errno(e, -err, "cannot fork");
	if (!effect(500))
		return err_set_errno(e, -EAGAIN, "cannot fork");
	v = vproc_new(kind_of(rq->argv), token_in(rq->env));
	v->state = V_WAITING;
	v->parent = w.image;
	v->cwd = xstrdup_null(rq->cwd);
	v->output = inherit(rq->output_fd);
	v->input = inherit(rq->input_fd);
	if (v->kind == V_NODE)
		h2o_begin(v, rq->argv);
	vlog("pid %d is forked: %s", (int)v->pid, v->token);
	check_fork(v);
	*out = watch(v, cb, arg);
	return 0;
}

static void helper_of(const struct vproc *p)
{
	struct vproc *h = vproc_new(V_HELPER, p->token);

	h->cwd = xstrdup("/");
}

static void executed(uint64_t id, uint64_t b)
{
	struct vproc *p = vproc_by_id(id);

	(void)b;
	if (!p || p->state != V_RUNNING)
		return;
	if (!w.peace && noise(id, 9, 80) == 0) {
		p->exec_failed = true;
		vproc_end(p, 127, 0);
		return;
	}
	if (p->kind == V_GATE)
		gate_begin(p);
	if (p->kind == V_NODE)
		h2o_execute(p);
	if (p->kind == V_NODE && !w.peace && noise(id, 3, 100) < 2)
		helper_of(p);
}

void proc_release(struct proc *h)
{
	struct vproc *v = h->v;

	if (h->over || v->state != V_WAITING || !effect(20))
		return;
	v->state = V_RUNNING;
	v->exec_at = w.now + noise((uint64_t)v->pid, w.now, 4) * MS;
	check_exec(v);
	world_at(v->exec_at, executed, vproc_id(v), 0);
}

int proc_adopt(
	uv_loop_t *loop, pid_t pid, uint64_t ticks, proc_exit_cb cb, void *arg, struct proc **out)
{
	struct vproc *v = vproc_find(pid);
	int err = fault(FAULT_ADOPT);

	(void)loop;
	look(30);
	if (err)
		return -err;
	if (w.ghost || !v || v->ticks != ticks)
		return -ESRCH;
	invariant("one-watcher", !v->watch, "pid %d is adopted twice", (int)pid);
	if (v->watch)
		return -ESRCH;
	*out = watch(v, cb, arg);
	if (v->state == V_ZOMBIE)
		notify(tell_end, *out);
	return 0;
}

pid_t proc_pid(const struct proc *h)
{
	return h->pid;
}

uint64_t proc_start_ticks(const struct proc *h)
{
	return h->ticks;
}

bool proc_is_watched(pid_t pid)
{
	const struct vproc *v = vproc_find(pid);

	return v && v->watch;
}

int proc_signal(struct proc *h, int sig)
{
	if (h->over || !vproc_runs(h->v) || !effect(10))
		return -ESRCH;
	check_signal(h->v, sig);
	vproc_signal(h->v, sig);
	return 0;
}

int proc_kill_group(struct proc *h)
{
	return proc_signal(h, SIGKILL);
}

static bool is_executed(const struct vproc *p)
{
	return p->state == V_RUNNING && w.now >= p->exec_at;
}

static bool ends(const struct vproc *p, const char *mark, proc_wanted_fn *wanted, void *arg)
{
	if (!is_executed(p) || p->watch || !p->token || !has_prefix(p->token, mark))
		return false;
	return wanted ? wanted(p->token + strlen(mark), arg) : streq(p->token, mark);
}

static unsigned kill_those(const char *mark, proc_wanted_fn *wanted, void *arg)
{
	unsigned n = 0;

	look(100);
	for (struct vproc *p = w.procs; p && !w.ghost; p = p->next) {
		if (!ends(p, mark, wanted, arg) || !effect(10))
			continue;
		check_signal(p, SIGKILL);
		vproc_signal(p, SIGKILL);
		n++;
	}
	return n;
}

unsigned proc_kill_stragglers(const char *token)
{
	return kill_those(token, NULL, NULL);
}

unsigned proc_kill_marked(const char *mark, proc_wanted_fn *wanted, void *arg)
{
	return kill_those(mark, wanted, arg);
}

int proc_can_look(void)
{
	return fault_is_on(FAULT_OPEN) ? -EMFILE : -fault(FAULT_LOOK);
}

void proc_free(struct proc *h)
{
	if (!h)
		return;
	unnotify(h);
	if (!h->over && !w.ghost && h->v->watch == h) {
		h->v->watch = NULL;
		if (h->v->state == V_WAITING || h->v->state == V_ZOMBIE)
			h->v->state = V_GONE; /* it sees the end of its pipe; and is reaped */
	}
	free(h);
}

void spawn_save_limits(void)
{
}

void spawn_hand_over_limits(void)
{
}

/* ---- drv/command.h ---- */

struct command {
	struct vproc *v;
	command_cb cb;
	void *arg;
	int code;
	const char *output;
};

static void tell_command(void *arg)
{
	struct command *c = arg;

	if (c->v) {
		c->v->state = V_GONE;
		c->v->command = NULL;
	}
	if (c->cb)
		c->cb(c->code, 0, c->output, c->arg);
	free(c);
}

static void command_ends(uint64_t id, uint64_t code)
{
	struct vproc *p = vproc_by_id(id);
	struct command *c = p ? p->command : NULL;

	if (!p || !vproc_runs(p))
		return;
	vproc_end(p, (int)code, 0);
	if (!c)
		return;
	c->code = (int)code;
	notify(tell_command, c);
}

/* What it says: `java -version`, a rotation, the builder of the boot cache. */
static void plan_command(struct command *c, char *const *argv, uint64_t id)
{
	uint64_t takes = (50 + noise(id, 4, 300)) * MS, code = 0;

	c->output = "";
	if (argv[1] && streq(argv[1], "-version")) {
		c->output = "openjdk version \"17.0.15\"\n";
	} else if (argv[1] && streq(argv[1], "--build-boot-cache")) {
		takes = (2 + noise(id, 4, 20)) * SEC;
		c->output = "no room\n";
		code = noise(id, 5, 3);
		c->v->kind = V_BUILDER;
	} else {
		code = noise(id, 5, 10) == 0;
	}
	if (!w.peace && noise(id, 6, 20) == 0) {
		code = 1;
		c->output = "something is wrong\n";
	}
	world_at(w.now + takes, command_ends, id, code);
}

int command_run(uv_loop_t *loop, char *const *argv, char *const *env, uint64_t timeout_ms,
	command_cb cb, void *arg, struct command **out)
{
	struct command *c;
	int err = fault(FAULT_FORK);

	(void)loop, (void)timeout_ms;
	if (err)
		return -err;
	if (!effect(500))
		return -EAGAIN;
	c = xcalloc(1, sizeof(*c));
	*c = (struct command){vproc_new(V_COMMAND, token_in(env)), cb, arg, 0, NULL};
	c->v->parent = w.image;
	c->v->command = c;
	plan_command(c, argv, vproc_id(c->v));
	*out = c;
	return 0;
}

void command_cancel(struct command *c)
{
	unnotify(c);
	if (!w.ghost && c->v->command == c) {
		c->v->command = NULL;
		c->v->state = V_GONE;
	}
	free(c);
}

void command_end(struct command *c, uint64_t grace_ms)
{
	uint64_t id = vproc_id(c->v);

	(void)grace_ms;
	if (effect(10))
		world_at(w.now + 200 * MS, command_ends, id, 1);
}

void command_end_alone(struct command *c, uint64_t grace_ms)
{
	(void)grace_ms;
	command_cancel(c);
}

const char *command_output(const struct command *c)
{
	return c->output;
}

char *command_own_program(void)
{
	return xstrdup(WORLD_ROOT "/bin/h2ofleetd");
}

/* ---- drv/machine.h, drv/procinfo.h ---- */

uint64_t machine_memory(void)
{
	return UINT64_C(64) << 30;
}

uint64_t machine_memory_available(void)
{
	return UINT64_C(32) << 30;
}

unsigned machine_cores(void)
{
	return 8;
}

int64_t machine_oom_kills(void)
{
	return w.oom_kills;
}

uint64_t machine_disk_free(const char *path)
{
	(void)path;
	return UINT64_C(1) << 40;
}

void machine_boot_id(char out[40])
{
	snprintf(out, 40, "00000000-0000-0000-0000-0000%08u", w.boot);
}

uint64_t process_start_ticks(pid_t pid)
{
	const struct vproc *p = vproc_find(pid);

	return p ? p->ticks : 0;
}

void process_comm(pid_t pid, char out[32])
{
	const struct vproc *p = vproc_find(pid);

	out[0] = '\0';
	if (pid == w.pid || (p && p->parent && !is_executed(p) && p->state != V_ZOMBIE) ||
		(p && p->exec_at > w.now))
		snprintf(out, 32, OUR_NAME);
	else if (p)
		snprintf(out, 32, "%s", p->kind == V_NODE ? "java" : "other");
}

bool process_has_env(pid_t pid, const char *assignment)
{
	const struct vproc *p = vproc_find(pid);

	return p && is_executed(p) && streq_null(p->token, assignment);
}

char *process_env(pid_t pid, const char *beginning)
{
	const struct vproc *p = vproc_find(pid);

	if (!p || !is_executed(p) || !p->token || !has_prefix(p->token, beginning))
		return NULL;
	return xstrdup(p->token + strlen(beginning));
}

char *process_snapshot(pid_t pid)
{
	look(200);
	return xasprintf("pid %d\n", (int)pid);
}

int process_stat_read(pid_t pid, struct process_stat *out)
{
	const struct vproc *p = vproc_find(pid);

	look(5);
	if (!p)
		return -ESRCH;
	*out = (struct process_stat){.state = p->state == V_ZOMBIE ? 'Z'
					      : h2o_paused(p)      ? 'T'
								   : 'S',
		.ppid = p->parent == w.image ? w.pid : 1,
		.start_ticks = p->ticks};
	process_comm(pid, out->comm);
	return 0;
}

int process_usage_read(pid_t pid, struct process_usage *out)
{
	*out = (struct process_usage){1000, 1 << 20};
	return vproc_find(pid) ? 0 : -ESRCH;
}

pid_t __wrap_getpid(void);
pid_t __wrap_getpid(void)
{
	return w.pid;
}

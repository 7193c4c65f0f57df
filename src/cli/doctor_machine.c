/* Memory, cores, limits, kernel and environment, for doctor. */
#include "cli/checks.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "base/text.h"
#include "drv/machine.h"
#include "drv/packages.h"
#include "model/plan.h"

/* What a node takes beside its heap; an idle one of 512 MB was seen with 165 to 260 MB in all. */
#define NODE_OVERHEAD (300ull << 20)
/* Descriptors of one JVM, and tasks of one (its threads). */
#define NODE_FILES 1024
#define NODE_TASKS 512

/* All that start by themselves. */
struct demand {
	uint64_t nodes;
	uint64_t heap;
	bool told; /* one of them is too much already, and that was said */
};

static bool too_much(const struct machine_facts *m, uint64_t nodes, uint64_t heap)
{
	return heap + nodes * NODE_OVERHEAD > m->mem_bytes;
}

static void add_too_much(struct doctor *d, const struct machine_facts *m, const char *context,
	uint64_t nodes, uint64_t heap)
{
	_cleanup_free_ char *heap_text = text_human_size(heap);
	_cleanup_free_ char *all = text_human_size(m->mem_bytes);

	doctor_add(d, "memory", CHECK_WARNING,
		"set max_mem_size or the number of nodes lower: once the nodes fill their heaps, "
		"the kernel kills one of them",
		"%s%" PRIu64 " node%s may take %s of heap, and about 300 MB more each; this "
		"machine or container has %s",
		context, nodes, nodes == 1 ? "" : "s", heap_text, all);
}

static struct demand total_demand(struct doctor *d, const struct machine_facts *m, bool report)
{
	struct demand t = {0};

	for (size_t i = 0; i < d->conf->n_clouds; i++) {
		const struct cloud_conf *c = d->conf->clouds[i];
		_cleanup_(err_clear) struct err e = ERR_NULL;
		_cleanup_free_ char *context = xasprintf("cloud %s: ", c->name);
		uint64_t xmx = 0;
		uint64_t xms = 0;

		if (plan_memory(c, m, &xmx, &xms, &e) < 0) {
			if (report)
				doctor_add_sentence(d, "memory", CHECK_PROBLEM, context,
					err_msg(&e), "set max_mem_size and min_mem_size lower");
			continue;
		}
		if (xmx == 0) /* the JVM's own default */
			xmx = m->mem_bytes / 4;
		if (report && too_much(m, (uint64_t)c->nodes, (uint64_t)c->nodes * xmx)) {
			add_too_much(d, m, context, (uint64_t)c->nodes, (uint64_t)c->nodes * xmx);
			t.told |= c->autostart;
		}
		if (!c->autostart)
			continue;
		t.nodes += (uint64_t)c->nodes;
		t.heap += (uint64_t)c->nodes * xmx;
	}
	return t;
}

void check_memory(struct doctor *d)
{
	struct machine_facts m = {.mem_bytes = machine_memory(), .cores = machine_cores()};
	uint64_t available = machine_memory_available();
	struct demand t = total_demand(d, &m, true);
	_cleanup_free_ char *heap = text_human_size(t.heap);
	_cleanup_free_ char *all = text_human_size(m.mem_bytes);
	_cleanup_free_ char *now = text_human_size(available);
	const char *plural = t.nodes == 1 ? "" : "s";

	if (t.nodes == 0)
		doctor_add(d, "memory", CHECK_OK, NULL,
			"%s here, %s of it available; no cloud starts by itself", all, now);
	else if (t.told)
		return;
	else if (too_much(&m, t.nodes, t.heap))
		add_too_much(d, &m, "", t.nodes, t.heap);
	else if (t.heap > available && !d->daemon && !d->daemon_silent)
		doctor_add(d, "memory", CHECK_WARNING,
			"end other programs, or set max_mem_size lower",
			"%" PRIu64 " node%s may take %s of heap, but only %s of %s are available "
			"now",
			t.nodes, plural, heap, now, all);
	else
		doctor_add(d, "memory", CHECK_OK, NULL,
			"%" PRIu64 " node%s may take %s of heap; %s here, %s of it available",
			t.nodes, plural, heap, all, now);
}

void check_cores(struct doctor *d)
{
	struct machine_facts m = {.mem_bytes = machine_memory(), .cores = machine_cores()};
	struct demand t = total_demand(d, &m, false);
	const char *plural = m.cores == 1 ? "" : "s";

	if (t.nodes > m.cores)
		doctor_add(d, "cores", CHECK_WARNING,
			"more nodes than cores make nothing faster, and each takes 4 to 8 s of a "
			"core to boot: take fewer nodes, or give ready_timeout more time",
			"%" PRIu64 " nodes for %u core%s", t.nodes, m.cores, plural);
	else
		doctor_add(d, "cores", CHECK_OK, NULL, "%u core%s for %" PRIu64 " node%s", m.cores,
			plural, t.nodes, t.nodes == 1 ? "" : "s");
}

static void check_nofile(struct doctor *d)
{
	struct rlimit rl;

	/* The hard limit counts: JVMs raise the other to it. */
	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	if (rl.rlim_max != RLIM_INFINITY && rl.rlim_max < NODE_FILES)
		doctor_add(d, "limits", CHECK_WARNING,
			"each node should be allowed 1024 and more: raise it (`ulimit -n`, "
			"/etc/security/limits.conf, or LimitNOFILE= of the service)",
			"a process may have %" PRIu64 " files open at most", (uint64_t)rl.rlim_max);
	else if (rl.rlim_max == RLIM_INFINITY)
		doctor_add(d, "limits", CHECK_OK, NULL, "open files: unlimited");
	else
		doctor_add(d, "limits", CHECK_OK, NULL, "open files: %" PRIu64 " for each process",
			(uint64_t)rl.rlim_max);
}

void check_limits(struct doctor *d)
{
	uint64_t nodes = 0;
	struct rlimit rl;

	check_nofile(d);
	for (size_t i = 0; d->conf && i < d->conf->n_clouds; i++)
		if (d->conf->clouds[i]->autostart)
			nodes += (uint64_t)d->conf->clouds[i]->nodes;
	if (geteuid() == 0 || getrlimit(RLIMIT_NPROC, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY)
		return; /* root has no such limit */
	if (rl.rlim_cur < nodes * NODE_TASKS)
		doctor_add(d, "limits", CHECK_WARNING,
			"threads of JVMs count too, some hundreds for each node: raise it (`ulimit "
			"-u`, /etc/security/limits.conf, or LimitNPROC= of the service)",
			"this user may have %" PRIu64 " processes and threads, for %" PRIu64
			" nodes",
			(uint64_t)rl.rlim_cur, nodes);
}

/* Can processes be watched through pidfds? 0, or a positive errno. */
static int try_pidfd(void)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	siginfo_t si;

	if (fd < 0)
		return errno;
	/* Not our child, so ECHILD from a kernel that knows P_PIDFD (5.4), and EINVAL from others.
	 */
	if (waitid((idtype_t)3 /* P_PIDFD */, (id_t)fd, &si, WEXITED | WNOHANG) < 0 &&
		errno != ECHILD)
		return errno;
	return 0;
}

void check_kernel(struct doctor *d)
{
	int pidfd = try_pidfd();
	/* Closes nothing: nobody has that many. */
	bool range = syscall(SYS_close_range, ~0u, ~0u, 0) == 0;
	struct utsname u;

	uname(&u);
	if (pidfd)
		doctor_add(d, "kernel", CHECK_PROBLEM,
			pidfd == EPERM ? "a seccomp filter of the container forbids it: update the "
					 "container runtime, or allow pidfd_open and waitid"
				       : "Linux 5.4 or later is needed",
			"%s %s has no pidfds, by which nodes are watched (%s)", u.sysname,
			u.release, strerror(pidfd));
	else if (!range)
		doctor_add(d, "kernel", CHECK_WARNING,
			"Linux 5.9 has it, unless a container's seccomp filter forbids it; without "
			"it each start of a node takes a little longer",
			"%s %s has no close_range", u.sysname, u.release);
	else
		doctor_add(d, "kernel", CHECK_OK, NULL, "%s %s", u.sysname, u.release);
}

/* As Python's requests and libcurl read it: names of hosts between commas. */
static bool proxy_spared(const char *no_proxy)
{
	_cleanup_free_ char *list = xstrdup(no_proxy);
	char *save = NULL;

	for (char *w = strtok_r(list, ", ", &save); w; w = strtok_r(NULL, ", ", &save))
		if (streq(w, "*") || streq(w, "127.0.0.1") || has_prefix(w, "127.0.0.0/"))
			return true;
	return false;
}

void check_proxy(struct doctor *d)
{
	static const char *const vars[] = {"http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"};
	const char *except = env_value("no_proxy");
	_cleanup_free_ char *advice = NULL;
	const char *var = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(vars) && !var; i++)
		if (env_value(vars[i]))
			var = vars[i];
	if (!except)
		except = env_value("NO_PROXY");
	if (!var || (except && proxy_spared(except))) {
		doctor_add(d, "proxy", CHECK_OK, NULL,
			var ? "%s is set, but not used for 127.0.0.1" : "none in the environment",
			var);
		return;
	}
	advice =
		xasprintf("export no_proxy=%s%s127.0.0.1,localhost (h2ofleet itself uses no proxy)",
			except ? except : "", except ? "," : "");
	/* Its value may hold a password. */
	doctor_add(d, "proxy", CHECK_WARNING, advice,
		"%s is set: H2O's clients for Python and R send requests for 127.0.0.1 there too",
		var);
}

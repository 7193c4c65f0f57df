/* The whole supervisor in a simulated world (fleet/world.h): clouds that boot, hang, die, lie and
 * are locked too early, people at the worst time, daemons killed between any two of their calls and
 * followed by others, in virtual time. The invariants are checked at each of its acts.
 *
 *	test_fleet                          the usual number of events, and the regressions
 *	SIM_EVENTS=N test_fleet             more of them
 *	test_fleet --seconds N [--jobs N]   for so long
 *	test_fleet --replay "SEED [STEPS]"  one run, with its log */
#include "fleet/world.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "base/strbuf.h"

static const char usage[] =
	"usage: test_fleet [--events N] [--seconds N] [--jobs N] [--first SEED]\n"
	"                  [--replay \"SEED [STEPS]\"] [--no-shrink] [--first-failure]\n";

#define EVENTS   1200000
#define MAX_JOBS 64

/* Of all workers; in shared memory. */
struct totals {
	uint64_t events, runs, ns, readies, losses, hangs, crashes, lives, adopted, short_locks,
		idle_stops, passed, knocks, faults, failed, created, deleted, strays, reexecs,
		steps, effects;
};

struct worker {
	pid_t pid;
	uint64_t seed; /* at work on */
	bool failed;
	char violation[32], detail[600];
	struct totals t;
};

static struct worker *workers;
/* A run that takes longer is in an endless loop; the usual one takes a twentieth of a second. */
static unsigned patience = 120;
static uint64_t *next_seed, *stop;

static double seconds(void)
{
	struct timespec ts;

	timespec_get(&ts, TIME_UTC);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void add_up(struct totals *t)
{
	t->runs++;
	t->events += w.events;
	t->ns += w.now;
	t->readies += w.readies;
	t->losses += w.losses;
	t->hangs += w.hangs;
	t->crashes += w.crashes;
	t->lives += w.lives;
	t->adopted += w.adopted;
	t->short_locks += w.short_locks;
	t->idle_stops += w.idle_stops;
	t->passed += w.passed;
	t->knocks += w.knocks;
	t->faults += w.faults_hit;
	t->failed += w.failed;
	t->created += w.created;
	t->deleted += w.deleted;
	t->strays += w.strays;
	t->reexecs += w.reexecs;
	t->effects += w.effects;
	for (size_t i = 0; i < N_STEP_KINDS; i++)
		t->steps += w.steps[i];
}

/* ---- one run, in a process of its own ---- */

struct outcome {
	bool failed;
	char violation[32], detail[600];
	uint64_t events;
};

static void note(struct outcome *o, int status)
{
	o->failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	if (!o->failed || o->violation[0])
		return;
	snprintf(o->violation, sizeof(o->violation), "%s",
		WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "endless" : "crash");
	snprintf(o->detail, sizeof(o->detail), "the process ended with status %d", status);
}

/* `log`: NULL: none. */
static void run_apart(const struct script *s, FILE *log, struct outcome *o)
{
	struct outcome *shared =
		mmap(NULL, sizeof(*o), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		bool ok;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(patience);
		if (log)
			setvbuf(log, NULL, _IOLBF, 0); /* also of one that crashes */
		w.log = log;
		ok = run_script(s);
		snprintf(shared->violation, sizeof(shared->violation), "%s", ok ? "" : w.violation);
		memcpy(shared->detail, w.detail, sizeof(shared->detail));
		shared->events = w.events;
		fflush(NULL);
		_exit(ok ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	*o = *shared;
	munmap(shared, sizeof(*shared));
	note(o, status);
}

/* ---- making a failing run short ---- */

static bool still_fails(const struct script *s, const struct outcome *as)
{
	struct outcome o;

	run_apart(s, NULL, &o);
	return o.failed && streq(o.violation, as->violation);
}

static struct script without(const struct script *s, size_t from, size_t n)
{
	struct script r = {.seed = s->seed, .steps = xcalloc(s->n, sizeof(*s->steps))};

	for (size_t i = 0; i < s->n; i++)
		if (i < from || i >= from + n)
			r.steps[r.n++] = s->steps[i];
	return r;
}

/* Leaves out half of the steps, a quarter, ..., one, as long as it fails all the same. */
static void shrink(struct script *s, const struct outcome *o)
{
	for (size_t n = MAX(s->n / 2, (size_t)1); s->n; n /= 2) {
		for (size_t from = 0; from < s->n;) {
			struct script less = without(s, from, n);

			if (still_fails(&less, o)) {
				script_free(s);
				*s = less;
			} else {
				script_free(&less);
				from += n;
			}
		}
		if (n <= 1)
			break;
	}
}

static void report(uint64_t seed, const struct outcome *o, bool shrinks)
{
	_cleanup_free_ char *text = NULL;
	struct script s;

	script_make(&s, seed);
	if (shrinks)
		shrink(&s, o);
	text = script_text(&s);
	printf("seed %" PRIu64 " violates '%s': %s\n  test_fleet --replay \"%s\"\n", seed,
		o->violation, o->detail, text);
	fflush(stdout);
	script_free(&s);
}

/* ---- many runs ---- */

static void work(struct worker *me)
{
	while (!*stop) {
		struct script s;
		bool ok;

		me->seed = __atomic_fetch_add(next_seed, 1, __ATOMIC_SEQ_CST);
		script_make(&s, me->seed);
		alarm(patience);
		ok = run_script(&s);
		script_free(&s);
		add_up(&me->t);
		if (ok)
			continue;
		snprintf(me->violation, sizeof(me->violation), "%s", w.violation);
		memcpy(me->detail, w.detail, sizeof(me->detail));
		_exit(1);
	}
	_exit(0);
}

static void start(struct worker *me)
{
	pid_t pid;

	me->violation[0] = '\0';
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work(me);
	}
	me->pid = pid; /* the child has the same memory */
}

static struct totals sum(int jobs)
{
	struct totals t = {0};

	for (int i = 0; i < jobs; i++)
		for (size_t n = 0; n < sizeof(t) / sizeof(uint64_t); n++)
			((uint64_t *)&t)[n] += ((uint64_t *)&workers[i].t)[n];
	return t;
}

static void tell(const struct totals *t, double took)
{
	printf("%" PRIu64 " events in %" PRIu64 " runs, %.0f s (%.0f h simulated): %" PRIu64
	       " steps of the script, %" PRIu64 " acts of the daemon; %" PRIu64
	       " times ready, %" PRIu64 " lost, %" PRIu64 " hangs, %" PRIu64
	       " short locks, %" PRIu64 " failed, %" PRIu64 " idle stops; %" PRIu64
	       " daemons, %" PRIu64 " killed, %" PRIu64 " replaced, %" PRIu64
	       " whole clouds taken over; %" PRIu64 " clients passed, %" PRIu64 " knocks; %" PRIu64
	       " calls failed; %" PRIu64 " clouds made, %" PRIu64 " deleted\n",
		t->events, t->runs, took, (double)t->ns / 3.6e9, t->steps, t->effects, t->readies,
		t->losses, t->hangs, t->short_locks, t->failed, t->idle_stops, t->lives, t->crashes,
		t->reexecs, t->adopted, t->passed, t->knocks, t->faults, t->created, t->deleted);
	fflush(stdout);
}

struct options {
	uint64_t events, first;
	double seconds;
	int jobs;
	const char *replay;
	bool shrinks, progress;
	unsigned max_failures; /* so many are enough */
};

static struct worker *worker_of(pid_t pid, int jobs)
{
	for (int i = 0; i < jobs; i++)
		if (workers[i].pid == pid)
			return &workers[i];
	return NULL;
}

static unsigned watch(const struct options *o, double begun)
{
	unsigned failures = 0, running = (unsigned)o->jobs;
	double told = begun;

	while (running) {
		int status;
		struct totals t = sum(o->jobs);
		pid_t pid = waitpid(-1, &status, WNOHANG);
		struct worker *me = pid > 0 ? worker_of(pid, o->jobs) : NULL;

		if (o->seconds > 0 ? seconds() - begun > o->seconds : t.events >= o->events)
			*stop = 1;
		if (o->progress && seconds() - told > 60) {
			told = seconds();
			tell(&t, told - begun);
		}
		if (!me) {
			nanosleep(&(struct timespec){0, 20000000}, NULL);
			continue;
		}
		running--;
		if (status != 0) {
			struct outcome x = {0};

			memcpy(x.violation, me->violation, sizeof(x.violation));
			memcpy(x.detail, me->detail, sizeof(x.detail));
			note(&x, status);
			printf("after %" PRIu64 " events: ", t.events);
			report(me->seed, &x, o->shrinks);
			failures++;
		}
		if (!*stop && failures < o->max_failures) {
			start(me);
			running++;
		} else {
			*stop = 1;
		}
	}
	return failures;
}

static void *shared(size_t n)
{
	return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static int campaign(const struct options *o)
{
	double begun = seconds();
	unsigned failures;
	struct totals t;

	workers = shared(sizeof(*workers) * (size_t)o->jobs);
	next_seed = shared(sizeof(*next_seed));
	stop = shared(sizeof(*stop));
	*next_seed = o->first;
	for (int i = 0; i < o->jobs; i++)
		start(&workers[i]);
	failures = watch(o, begun);
	t = sum(o->jobs);
	tell(&t, seconds() - begun);
	if (failures)
		printf("%u failing runs\n", failures);
	return failures ? 1 : 0;
}

/* ---- the same seed is the same run ---- */

static char *log_of(const struct script *s)
{
	struct strbuf text = STRBUF_NULL;

	w.log = strbuf_stream(&text);
	run_script(s);
	fclose(TAKE_PTR(w.log));
	return strbuf_take(&text);
}

static int check_determinism(uint64_t first, uint64_t n)
{
	for (uint64_t seed = first; seed < first + n; seed++) {
		_cleanup_free_ char *one = NULL, *two = NULL;
		struct script s;

		script_make(&s, seed);
		one = log_of(&s);
		two = log_of(&s);
		script_free(&s);
		if (!streq(one, two)) {
			printf("seed %" PRIu64 " run twice has two logs\n", seed);
			return 1;
		}
	}
	printf("%" PRIu64 " seeds run twice: the same logs\n", n);
	return 0;
}

/* ---- runs that once failed ---- */

static bool read_lines(const char *path, struct strv *lines)
{
	_cleanup_free_ char *line = NULL;
	FILE *f = fopen(path, "re");
	bool there = f != NULL;
	size_t cap = 0;

	while (f && getline(&line, &cap, f) > 0) {
		line[strcspn(line, "#\n")] = '\0';
		if (line[strspn(line, " ")])
			strv_add(lines, line);
	}
	if (f)
		fclose(f);
	return there;
}

static int check_regressions(const char *path)
{
	_cleanup_(strv_free) struct strv lines = STRV_NULL;
	size_t failures = 0;

	if (!read_lines(path, &lines)) {
		printf("cannot read %s\n", path);
		return 1;
	}
	for (size_t i = 0; i < lines.n; i++) {
		struct outcome o = {.failed = true};
		struct script s;

		if (script_parse(&s, lines.v[i]))
			run_apart(&s, NULL, &o);
		script_free(&s);
		failures += o.failed;
		if (o.failed)
			printf("again: '%s': %s: %s\n", o.violation, o.detail, lines.v[i]);
	}
	printf("%zu runs that once failed: %zu fail\n", lines.n, failures);
	return failures > 0;
}

static int replay(const char *text)
{
	struct outcome o;
	struct script s;

	if (!script_parse(&s, text)) {
		fputs(usage, stderr);
		return 2;
	}
	run_apart(&s, stdout, &o);
	script_free(&s);
	printf("%" PRIu64 " events%s%s%s%s\n", o.events, o.failed ? ": violated: " : "",
		o.violation, o.failed ? ": " : "", o.detail);
	return o.failed;
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {{"events", required_argument, NULL, 'e'},
		{"seconds", required_argument, NULL, 's'}, {"jobs", required_argument, NULL, 'j'},
		{"first", required_argument, NULL, 'f'}, {"replay", required_argument, NULL, 'r'},
		{"no-shrink", no_argument, NULL, 'n'}, {"first-failure", no_argument, NULL, '1'},
		{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		o->progress |= c == 's';
		if (c == 'e')
			o->events = strtoull(optarg, NULL, 10);
		else if (c == 's')
			o->seconds = strtod(optarg, NULL);
		else if (c == 'j')
			o->jobs = MIN(MAX((int)strtol(optarg, NULL, 10), 1), MAX_JOBS);
		else if (c == 'f')
			o->first = strtoull(optarg, NULL, 10);
		else if (c == 'r')
			o->replay = optarg;
		else if (c == 'n')
			o->shrinks = false;
		else if (c == '1')
			o->max_failures = 1;
		else
			return -1;
	}
	return optind < argc ? -1 : 0;
}

static const char *regressions_file(void)
{
	static char path[4096];
	const char *dir = getenv("srcdir");

	snprintf(path, sizeof(path), "%s/tests/sim/regressions", dir ? dir : ".");
	return path;
}

int main(int argc, char **argv)
{
	const char *events = getenv("SIM_EVENTS"), *slow = getenv("H2OFLEET_SLOW"), *regressions;
	struct options o = {
		.events = events ? strtoull(events, NULL, 10) : EVENTS,
		.first = 1,
		.jobs = (int)MIN(MAX(sysconf(_SC_NPROCESSORS_ONLN), 1), MAX_JOBS),
		.shrinks = true,
		.max_failures = 5,
	};
	static char *env[] = {(char *)"PATH=/bin", NULL};
	int r;

	if (parse(argc, argv, &o) < 0) {
		fputs(usage, stderr);
		return 2;
	}
	if (slow)
		patience *= (unsigned)strtoul(slow, NULL, 10);
	regressions = regressions_file();
	environ = env; /* from here on there is none of the machine's */
	json_object_seed(1);
	r = argc > 1 ? 0 : check_regressions(regressions);
	if (o.replay)
		return replay(o.replay);
	if (argc == 1)
		r |= check_determinism(o.first, MIN(o.events / 20000 + 1, (uint64_t)20));
	return campaign(&o) | r;
}

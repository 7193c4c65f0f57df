/* The knobs: where they come from, for whom they are meant, and those that act at once.
 *
 *	[INDEX.][gGENERATION.][tMS.][rMS.]KEY=VALUE
 *
 * tMS: so long after exec, rMS: so long after the first answer. From -Dfake.*, from lines of
 * <ice_root>/fake.ctl, from POST /fake/KEY?value=VALUE, from $FAKE_KNOBS. */
#include "fake.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"

#define MAX_DELAYED 32

static const struct {
	const char *name;
	int64_t dflt;
	const char *help;
} knobs[] = {
#define X(name, dflt, help) {#name, dflt, help},
	FAKE_KNOBS(X)
#undef X
};

/* Waiting for their time; `after_ready` ones get their timer when the node is ready. */
static struct {
	char *key, *value;
	uint64_t ms;
	bool after_ready;
} delayed[MAX_DELAYED];
static size_t n_delayed;

struct selector {
	int64_t index, generation, t, r; /* -1: any, none */
};

void faults_list(FILE *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++)
		fprintf(f, "%-22s %6lld  %s\n", knobs[i].name, (long long)knobs[i].dflt,
			knobs[i].help);
}

/* One part of a key, if it is a selector; returns what follows it, or NULL. */
static const char *parse_selector(const char *key, struct selector *s)
{
	const char *digits = *key == 'g' || *key == 't' || *key == 'r' ? key + 1 : key;
	size_t len = strspn(digits, "0123456789");
	int64_t value = atoll(digits);

	if (len == 0 || digits[len] != '.')
		return NULL;
	if (*key == 'g')
		s->generation = value;
	else if (*key == 't')
		s->t = value;
	else if (*key == 'r')
		s->r = value;
	else
		s->index = value;
	return digits + len + 1;
}

static int signal_number(const char *value)
{
	static const struct {
		const char *name;
		int number;
	} names[] = {{"SEGV", SIGSEGV}, {"ABRT", SIGABRT}, {"BUS", SIGBUS}, {"ILL", SIGILL},
		{"KILL", SIGKILL}, {"TERM", SIGTERM}, {"STOP", SIGSTOP}};

	if (has_prefix(value, "SIG"))
		value += 3;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (streq(names[i].name, value))
			return names[i].number;
	return atoi(value);
}

static void out_of_memory(struct node *n, int64_t how)
{
	console_puts(n, "java.lang.OutOfMemoryError: Java heap space\n"
			"\tat water.MemoryManager.malloc(MemoryManager.java:310)\n"
			"\tat water.fvec.NewChunk.append2slow(NewChunk.java:730)\n");
	if (how == 2)
		return;
	console_puts(n, "Terminating due to java.lang.OutOfMemoryError: Java heap space\n");
	/* ExitOnOutOfMemoryError ends the JVM at once, without its exit hooks. */
	_exit(3);
}

static void spam(struct node *n, int64_t bytes)
{
	while (bytes > 0) {
		console_log(n, LVL_INFO, "FJ-1-1", "%0200lld spam", (long long)bytes);
		bytes -= 260;
	}
}

/* 3: in a session of its own and without the environment by which it could be known. */
static void leave_child(int64_t how)
{
	/* The command line of a disguised one names our directory, so that a test finds it. */
	char *const argv[] = {get_current_dir_name(), (char *)"120", NULL};
	sigset_t none;

	if (fork() != 0) {
		free(argv[0]);
		return;
	}
	if (how >= 2)
		setsid();
	close_range(3, ~0u, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (how == 3)
		execve("/bin/sleep", argv, (char *const[]){NULL});
	alarm(120); /* so that no failed test leaves it for ever */
	for (;;)
		pause();
}

static void steal_port(struct node *n, int64_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int one = 1;

	closep(&n->stolen_fd);
	n->stolen_fd = -1;
	if (port <= 0)
		return;
	n->stolen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(n->stolen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(n->stolen_fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
		listen(n->stolen_fd, 16) < 0)
		console_puts(n, "fake: steal_port failed\n");
}

static void touch_memory(int64_t mb)
{
	static char *memory;
	size_t size = (size_t)mb << 20;

	free(memory);
	memory = size ? xmalloc(size) : NULL;
	for (size_t i = 0; i < size; i += 4096)
		((volatile char *)memory)[i] = 1;
}

static void act(struct node *n, enum knob k, int64_t v)
{
	switch (k) {
	case KNOB_exit_code_now:
		node_exit(n, (int)v);
	case KNOB_crash:
		if (v > 0)
			node_raise(n, (int)v);
		break;
	case KNOB_stop:
		raise(SIGSTOP);
		break;
	case KNOB_hs_err:
		free(files_hs_err(n));
		node_raise(n, SIGABRT);
	case KNOB_oom:
		out_of_memory(n, v);
		break;
	case KNOB_log_spam:
		spam(n, v);
		break;
	case KNOB_fork_child:
		leave_child(v);
		break;
	case KNOB_steal_port:
		steal_port(n, v);
		break;
	case KNOB_rss_mb:
		touch_memory(v);
		break;
	case KNOB_grid_ms:
		jobs_start_grid(n, v);
		break;
	case KNOB_refuse:
		if (v)
			http_close_api(n);
		else if (n->bound)
			node_listen_api(n);
		break;
	default:
		break;
	}
}

/* These act on what exists only after the bind. */
static bool needs_node(enum knob k)
{
	return k == KNOB_grid_ms || k == KNOB_refuse;
}

static bool apply(struct node *n, const char *key, const char *value)
{
	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++) {
		int64_t v;

		if (!streq(knobs[i].name, key))
			continue;
		v = i == KNOB_crash || i == KNOB_resume_crash ? signal_number(value) : atoll(value);
		if (i == KNOB_lie_name)
			replace_str(&n->lie_name, *value ? value : NULL);
		if (i == KNOB_journal)
			journal_open(n, value);
		n->knob[i] = v;
		if (!needs_node((enum knob)i) || n->ready)
			act(n, (enum knob)i, v);
		return true;
	}
	return false;
}

static void apply_delayed(struct node *n, int64_t slot)
{
	apply(n, delayed[slot].key, delayed[slot].value);
}

static bool delay(struct node *n, const char *key, const char *value, const struct selector *s)
{
	int64_t now = (int64_t)(clock_monotonic_ms() - n->start);
	size_t slot = n_delayed;

	if (n_delayed == MAX_DELAYED)
		return false;
	delayed[n_delayed++] = (__typeof__(delayed[0])){xstrdup(key), xstrdup(value),
		s->r >= 0 ? (uint64_t)s->r : (uint64_t)MAX(s->t - now, (int64_t)0), s->r >= 0};
	if (s->r < 0 || n->ready)
		timer_after(delayed[slot].ms, apply_delayed, (int64_t)slot);
	return true;
}

bool faults_set(struct node *n, const char *key, const char *value)
{
	struct selector s = {-1, -1, -1, -1};
	const char *rest;

	while ((rest = parse_selector(key, &s)))
		key = rest;
	if ((s.index >= 0 && s.index != knob(n, KNOB_index)) ||
		(s.generation >= 0 && s.generation != knob(n, KNOB_generation)))
		return true; /* for somebody else */
	if (s.t >= 0 || s.r >= 0)
		return delay(n, key, value, &s);
	return apply(n, key, value);
}

/* <fleet id>/<cloud>/<node>/<generation> */
static void read_token(struct node *n)
{
	const char *token = getenv("H2OFLEET_TOKEN");
	const char *last = token ? strrchr(token, '/') : NULL;
	const char *one = last ? memrchr(token, '/', (size_t)(last - token)) : NULL;

	if (!one)
		return;
	n->knob[KNOB_index] = atoll(one + 1);
	n->knob[KNOB_generation] = atoll(last + 1);
}

static void set_pair(struct node *n, const char *pair)
{
	_cleanup_free_ char *key = xstrndup(pair, strcspn(pair, "="));
	const char *value = pair + strlen(key);

	if (!faults_set(n, key, *value ? value + 1 : "1"))
		fprintf(stderr, "fakejava: unknown knob %s\n", key);
}

/* FAKE_KNOBS="KEY=VALUE KEY=VALUE": for who cannot add to the command line. */
static void read_environment(struct node *n)
{
	const char *value = getenv("FAKE_KNOBS");
	struct strv words = STRV_NULL;

	if (value && strv_add_words(&words, value) == 0)
		for (size_t i = 0; i < words.n; i++)
			set_pair(n, words.v[i]);
	strv_free(&words);
}

void faults_init(struct node *n)
{
	const char *const prefix = "fake.";

	for (size_t i = 0; i < ARRAY_SIZE(knobs); i++)
		n->knob[i] = knobs[i].dflt;
	read_token(n);
	read_environment(n);
	for (size_t i = 0; i < n->jvm.props.n; i++)
		if (has_prefix(n->jvm.props.v[i], prefix))
			set_pair(n, n->jvm.props.v[i] + strlen(prefix));
}

void faults_boot(struct node *n)
{
	if (knob(n, KNOB_refuse))
		http_close_api(n);
	if (knob(n, KNOB_grid_ms))
		jobs_start_grid(n, knob(n, KNOB_grid_ms));
	for (size_t i = 0; i < n_delayed; i++)
		if (delayed[i].after_ready)
			timer_after(delayed[i].ms, apply_delayed, (int64_t)i);
}

/* Lines that were appended since the last look; all of them where the file is another one. */
void faults_poll_ctl(struct node *n, int64_t arg)
{
	_cleanup_free_ char *path = xasprintf("%s/fake.ctl", n->h2o.ice_root), *text = NULL;
	size_t len = 0, old = n->ctl.len;
	char *save = NULL;

	(void)arg;
	timer_after((uint64_t)MAX(knob(n, KNOB_ctl_ms), 1), faults_poll_ctl, 0);
	if (file_read(path, 65536, &text, &len) < 0 || len == 0 || text[len - 1] != '\n')
		return; /* none, or its last line is being written */
	if (len < old || memcmp(text, strbuf_str(&n->ctl), old) != 0)
		old = 0;
	if (len == old)
		return;
	strbuf_reset(&n->ctl);
	strbuf_add(&n->ctl, text, len);
	for (char *l = strtok_r(text + old, "\n", &save); l; l = strtok_r(NULL, "\n", &save))
		set_pair(n, l);
}

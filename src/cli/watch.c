#include "cli/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/client.h"
#include "cli/show.h"

/* How often keys and signals are looked for while nothing else happens. */
#define TURN_MS 50

/* alternate screen, cursor off; and back */
#define ENTER "\033[?1049h\033[?25l\033[H\033[2J"
#define LEAVE "\033[?25h\033[?1049l"

struct watch {
	struct cli *cli;
	const struct strv *names;
	uint64_t interval_ms;
	struct client *client;
	struct call *call; /* on its way, or NULL */
	uint64_t next_ms;  /* when to ask again */
	json_t *answer;    /* the newest good one */
	char *trouble;     /* owned: why there is no newer one; NULL: there is */
	uint64_t lost_ms;  /* since when */
	size_t rows, columns;
	bool raw;           /* stdin's terminal settings are changed */
	struct termios was; /* what they were */
};

/* ---- the frame ---- */

/* How many bytes of a line of `len` fit into `columns`. */
static size_t fitting(const char *s, size_t len, size_t columns)
{
	size_t i = 0, seen = 0;

	while (i < len) {
		if (s[i] == '\033') {
			while (i < len && s[i] != 'm')
				i++;
			i += i < len;
			continue;
		}
		if ((s[i] & 0xc0) != 0x80 && seen++ == columns)
			break;
		i++;
	}
	return i;
}

char *watch_frame(const char *text, size_t rows, size_t columns)
{
	struct strbuf b = STRBUF_NULL;
	size_t row = 0;

	strbuf_puts(&b, "\033[H");
	for (; *text && row < rows; row++) {
		size_t len = strcspn(text, "\n"), fits = fitting(text, len, columns);

		if (row)
			strbuf_puts(&b, "\r\n");
		strbuf_add(&b, text, fits);
		if (fits < len)
			strbuf_puts(&b, "\033[0m");
		if (fits < columns) /* in the last column this would erase what was just written */
			strbuf_puts(&b, "\033[K");
		text += len + (text[len] == '\n');
	}
	if (row < rows)
		strbuf_puts(&b, "\r\n\033[J");
	return strbuf_take(&b);
}

/* ---- the terminal ---- */

static volatile sig_atomic_t ended, resized, suspended;

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else if (sig == SIGTSTP)
		suspended = 1;
	else
		ended = sig;
}

static void put(struct watch *w, const char *s)
{
	fputs(s, w->cli->out);
	fflush(w->cli->out);
}

static void enter(struct watch *w)
{
	struct termios raw;

	/* From the background it would stop us. */
	if (tcgetpgrp(STDIN_FILENO) == getpgrp() && tcgetattr(STDIN_FILENO, &w->was) == 0) {
		raw = w->was;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		w->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	}
	put(w, ENTER);
}

static void leave(struct watch *w)
{
	put(w, LEAVE);
	if (w->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &w->was);
	w->raw = false;
}

/* Ctrl-Z: the shell gets its screen for that time. */
static void suspend(struct watch *w)
{
	suspended = 0;
	leave(w);
	raise(SIGSTOP);
	enter(w);
	resized = 1;
}

static void look_at_size(struct watch *w)
{
	struct winsize size;
	bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col && size.ws_row;

	resized = 0;
	w->columns = known ? size.ws_col : 80;
	w->rows = known ? size.ws_row : 24;
}

/* ---- what is shown ---- */

static char *heading(const struct watch *w)
{
	_cleanup_free_ char *every = text_format_duration(w->interval_ms);
	char now[16] = "";
	time_t t = time(NULL);
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(now, sizeof(now), "%H:%M:%S", &tm);
	return xasprintf("h2ofleet status, every %s; q ends it%*s%s", every, 4, "", now);
}

static void print_problem(const struct watch *w, FILE *f)
{
	_cleanup_free_ char *for_long = NULL, *all = NULL, *shown = NULL;

	if (!w->trouble)
		return;
	for_long = text_human_duration((clock_monotonic_ms() - w->lost_ms) / 1000 * 1000);
	shown = text_visible(w->trouble, strlen(w->trouble));
	all = xasprintf("%s; waiting for %s. What was seen last:", shown, for_long);
	show_wrapped(f, w->columns, 0, all);
	fputc('\n', f);
}

/* Of the answer, the clouds that were asked for. A new reference. */
static json_t *chosen(const struct watch *w, FILE *f)
{
	json_t *all = json_object_get(w->answer, "clouds"), *some = json_array(), *cloud;
	size_t k;

	for (size_t i = 0; i < w->names->n; i++) {
		bool found = false;

		json_array_foreach (all, k, cloud) {
			const char *name = json_string_value(json_object_get(cloud, "name"));

			if (!streq_null(w->names->v[i], name))
				continue;
			json_array_append(some, cloud);
			found = true;
		}
		if (!found)
			fprintf(f, "no cloud '%s'\n", w->names->v[i]);
	}
	return json_pack("{s:o}", "clouds", some);
}

static void draw(struct watch *w)
{
	_cleanup_free_ char *frame = NULL, *head = heading(w);
	_cleanup_(strbuf_free) struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	fprintf(f, "%s\n\n", head);
	print_problem(w, f);
	if (w->names->n) {
		json_t *some = chosen(w, f);

		status_print(f, some, true, w->columns, w->cli->color && !w->trouble);
		json_decref(some);
	} else {
		status_print(f, w->answer, false, w->columns, w->cli->color && !w->trouble);
	}
	fclose(f);
	frame = watch_frame(strbuf_str(&text), w->rows, w->columns);
	put(w, frame);
}

/* ---- the loop ---- */

static void take_answer(struct watch *w)
{
	struct call *call = w->call;

	if (!call->done)
		return;
	if (call_ok(call) && json_is_array(json_object_get(call->json, "clouds"))) {
		json_decref(w->answer);
		w->answer = json_incref(call->json);
		free(TAKE_PTR(w->trouble));
	} else {
		if (!w->trouble)
			w->lost_ms = clock_monotonic_ms();
		free(w->trouble);
		w->trouble = xstrdup(err_msg(&call->err));
	}
	call_free(TAKE_PTR(w->call));
	draw(w);
}

/* Was q, or the end of the input, typed? */
static bool quits(const struct watch *w)
{
	char keys[32];
	ssize_t n;

	if (!w->raw)
		return false;
	n = read(STDIN_FILENO, keys, sizeof(keys));
	for (ssize_t i = 0; i < n; i++)
		if (keys[i] == 'q' || keys[i] == 'Q' || keys[i] == '\004')
			return true;
	return false;
}

static void turn(struct watch *w)
{
	struct pollfd p = {.fd = w->raw ? STDIN_FILENO : -1, .events = POLLIN};

	if (suspended)
		suspend(w);
	if (resized) {
		look_at_size(w);
		draw(w);
	}
	if (!w->call && clock_monotonic_ms() >= w->next_ms) {
		w->next_ms = clock_monotonic_ms() + w->interval_ms;
		w->call = client_begin(w->client, "GET", "/v1/clouds");
	}
	if (w->call) {
		client_turn(w->client, TURN_MS);
		take_answer(w);
	} else {
		poll(&p, 1, TURN_MS);
	}
}

static int run(struct watch *w)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP};
	struct sigaction sa = {.sa_handler = on_signal};
	bool quit = false;

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &sa, NULL);
	look_at_size(w);
	enter(w);
	draw(w);
	while (!ended && !(quit = quits(w)) && !ferror(w->cli->out))
		turn(w);
	leave(w);
	if (quit)
		return CLI_OK;
	return ended == SIGINT || !ended ? CLI_INTERRUPTED : 128 + ended;
}

/* A wrong name would be drawn for ever. */
static int look_for_names(struct watch *w)
{
	int code = CLI_OK;

	for (size_t i = 0; i < w->names->n; i++) {
		_cleanup_free_ char *name = client_escape(w->names->v[i]);
		int one;

		json_decref(client_get(w->cli, w->client, &one, "/v1/clouds/%s", name));
		code = cli_worse(code, one);
	}
	return code;
}

int watch_status(struct cli *cli, const struct strv *names, uint64_t interval_ms)
{
	struct watch w = {.cli = cli, .names = names, .interval_ms = interval_ms};
	int code;

	if (cli->json)
		return cli_usage(cli, "--watch is for people; programs follow `h2ofleet events -f "
				      "--json`");
	if (!isatty(STDOUT_FILENO) || streq_null(getenv("TERM"), "dumb"))
		return cli_usage(cli, "--watch needs a terminal to draw on; `h2ofleet events -f` "
				      "writes a line for each change");
	w.client = client_new(cli->socket);
	w.answer = client_get(cli, w.client, &code, "/v1/clouds");
	if (w.answer)
		code = look_for_names(&w);
	if (code == CLI_OK) {
		w.next_ms = clock_monotonic_ms() + interval_ms;
		code = run(&w);
	}
	call_free(w.call);
	json_decref(w.answer);
	free(w.trouble);
	client_free(w.client);
	return code;
}

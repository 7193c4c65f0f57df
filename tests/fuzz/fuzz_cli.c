/* The command lines. Whole commands of h2ofleet with what daemon and H2O answer to them, good or
 * bad: they end, with an exit code that is documented, and write nothing that a terminal would
 * obey. The options of h2ofleetd. And what stands in arguments: durations, sizes, times, keys and
 * their values, which are printed as they are read.
 *
 * Input: the words, one a line (a first one "~60": on a terminal of that width); then, each behind
 * a line "--", the files that words name as
 * ">NAME", for `doctor` and `prepare` the configuration, and the answers: raw if one begins with
 * "HTTP/", else a body, behind its status if that begins with a digit and is not 200. Java and the
 * builder of the boot cache have their turns among them (cli_world.c). */
#include "fuzz.h"

#include <getopt.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/strv.h"
#include "base/text.h"
#include "cli/cli.h"
#include "cli/h2o.h"
#include "cli/since.h"
#include "conf/conf.h"
#include "conf/keys.h"
#include "cli_world.h"
#include "daemon/daemon.h"
#include "drv/http.h"
#include "sockets.h"

#define MAX_WORDS   16
#define MAX_ANSWERS 32

/* --- who answers -------------------------------------------------------------------------- */

static struct fuzz_input input;
static int others[MAX_ANSWERS];
static size_t n_others;

static void say(int fd, const char *part, size_t len)
{
	_cleanup_free_ char *head = NULL;
	unsigned status = 200;

	if (!has_prefix(part, "HTTP/")) {
		if (len >= 4 && part[0] >= '2' && part[0] <= '5' && part[3] == ' ') {
			status = (unsigned)atoi(part);
			part += 4;
			len -= 4;
		}
		head = xasprintf("HTTP/1.1 %u x\r\nContent-Type: application/json\r\n"
				 "Content-Length: %zu\r\n\r\n",
			status, len);
		sockets_say(fd, head, strlen(head));
	}
	sockets_say(fd, part, len);
	shutdown(fd, SHUT_WR);
}

static bool on_connection(int fd, const struct sockaddr *to)
{
	_cleanup_free_ char *part = NULL;
	size_t len;

	(void)to;
	if (!input.n || n_others == MAX_ANSWERS) {
		close(fd);
		cli_world_refuse();
		return false;
	}
	others[n_others++] = fd;
	part = fuzz_part(&input, &len);
	say(fd, part, len);
	return true;
}

/* --- commands ----------------------------------------------------------------------------- */

/* All but `run`, which is a process that starts others. `status --watch` ends only by a signal. */
static bool is_allowed(const struct strv *words)
{
	bool files = streq(words->v[0], "api") || streq(words->v[0], "prepare") ||
		     streq(words->v[0], "doctor");

	if (!words->n || streq(words->v[0], "run"))
		return false;
	/* Paths of H2O have a slash in front, too; files are named behind an option. */
	for (size_t i = 1; files && i < words->n; i++)
		if (!cli_world_is_inside(words->v[i]) &&
			(words->v[i][0] != '/' || words->v[i - 1][0] == '-'))
			return false;
	return true;
}

/* Theirs is the configuration, and they have no other: a cache is removed by `prepare --clear`. */
static bool add_config(struct strv *words)
{
	_cleanup_free_ char *text = NULL, *path = NULL;

	if (!streq(words->v[0], "prepare") && !streq(words->v[0], "doctor"))
		return true;
	for (size_t i = 1; i < words->n; i++)
		if (has_prefix(words->v[i], "-c") || has_prefix(words->v[i], "--config"))
			return false;
	text = fuzz_part(&input, NULL);
	path = cli_world_config(text);
	strv_add(words, "--config");
	strv_add(words, path);
	return true;
}

/* What a user types is his own; a cloud that there is has no such name. */
static bool is_harmless(const struct strv *words)
{
	for (size_t i = 0; i < words->n; i++) {
		_cleanup_free_ char *shown = text_visible(words->v[i], strlen(words->v[i]));

		if (!streq(shown, words->v[i]))
			return false;
	}
	return true;
}

/* What we write to a terminal ourselves: colours, and what draws a line again. Removed. */
static size_t drop_ours(char *s, size_t n)
{
	static const char *const ours[] = {"\033[0m", "\033[31m", "\033[32m", "\033[33m",
		"\033[34m", "\033[35m", "\033[36m", "\033[1m", "\033[2m", "\033[K", "\r"};
	size_t kept = 0;

	for (size_t i = 0; i < n;) {
		size_t len = 0;

		for (size_t k = 0; k < ARRAY_SIZE(ours) && !len; k++)
			if (strlen(ours[k]) <= n - i &&
				memcmp(s + i, ours[k], strlen(ours[k])) == 0)
				len = strlen(ours[k]);
		if (!len)
			s[kept++] = s[i];
		i += MAX(len, (size_t)1);
	}
	return kept;
}

/* A word "~WIDTH" in front: what is written goes to a terminal that is so wide; 0: to none. */
static size_t take_width(struct strv *words)
{
	size_t width;

	if (words->v[0][0] != '~' || words->n < 2)
		return 0;
	width = strtoul(words->v[0] + 1, NULL, 10) % 200;
	free(words->v[0]);
	memmove(words->v, words->v + 1, words->n * sizeof(*words->v));
	words->n--;
	return width;
}

static void run_command(struct strv *words, size_t width)
{
	static const int codes[] = {CLI_OK, CLI_ERROR, CLI_USAGE, CLI_STOPPED, CLI_ABSENT, CLI_BUSY,
		CLI_FAILED, CLI_INTERRUPTED};
	_cleanup_(strbuf_free) struct strbuf out = STRBUF_NULL, err = STRBUF_NULL;
	struct cli cli = {.out = strbuf_stream(&out),
		.err = strbuf_stream(&err),
		.color = width,
		.live = width,
		.out_width = width ? width : 80,
		.err_width = width ? width : 80};
	bool documented = false;
	int code;

	n_others = 0;
	sockets_serve(on_connection);
	cli_world_enter(&input);
	code = cli_run(&cli, (int)words->n, words->v);
	cli_world_leave();
	sockets_serve(NULL);
	while (n_others)
		close(others[--n_others]);
	fclose(cli.out);
	fclose(cli.err);
	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		documented |= code == codes[i];
	fuzz_check(documented);
	fuzz_check(code != CLI_USAGE || err.len || out.len);
	if (width) {
		out.len = drop_ours(out.s, out.len);
		err.len = drop_ours(err.s, err.len);
	}
	fuzz_check_harmless(strbuf_str(&err), err.len);
	/* To a program `api` gives the bytes as they came. */
	if (!streq(words->v[0], "api") && is_harmless(words))
		fuzz_check_harmless(strbuf_str(&out), out.len);
	free(cli.failure);
}

/* --- h2ofleetd ---------------------------------------------------------------------------- */

static void run_daemon_options(struct strv *words)
{
	struct options opts = {0};
	int r;

	optind = 0; /* glibc begins anew */
	opterr = 0;
	r = options_parse((int)words->n, words->v, &opts);
	fuzz_check(r == -1 || r == 0 || r == 2);
}

/* --- what stands in them ------------------------------------------------------------------ */

static void check_numbers(const char *s)
{
	uint64_t v, again;
	int64_t i;

	if (text_parse_size(s, &v) == 0) {
		_cleanup_free_ char *text = text_format_size(v), *human = text_human_size(v);

		fuzz_check_text(text_parse_size(text, &again) == 0 && again == v && *human, text);
	}
	if (text_parse_duration(s, &v) == 0) {
		_cleanup_free_ char *text = text_format_duration(v);
		_cleanup_free_ char *human = text_human_duration(v);

		fuzz_check_text(
			text_parse_duration(text, &again) == 0 && again == v && *human, text);
	}
	if (text_parse_int(s, &i) == 0) {
		_cleanup_free_ char *text = xasprintf("%lld", (long long)i);
		int64_t i_again;

		fuzz_check(text_parse_int(text, &i_again) == 0 && i == i_again);
	}
	if (since_read(s, UINT64_C(1795300000000), &v))
		fuzz_check(v <= UINT64_C(1) << 62);
}

/* "KEY=VALUE": what is taken is given back so that it is taken as the same. */
static void check_key(const char *word)
{
	_cleanup_free_ char *name = xstrndup(word, strcspn(word, "=")), *text = NULL;
	_cleanup_(cloud_conf_freep) struct cloud_conf *a = NULL, *b = NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	const char *value = word + strlen(name);

	if (!*value++ || !keys_find(SECTION_CLOUD, name))
		return;
	a = cloud_conf_new("dev");
	b = cloud_conf_new("dev");
	if (cloud_conf_set(a, name, value, &e) < 0) {
		fuzz_check(e.msg && *e.msg && cloud_conf_equal(a, b));
		return;
	}
	text = cloud_conf_get(a, name);
	fuzz_check_text(cloud_conf_set(b, name, text, NULL) == 0, text);
	fuzz_check_text(cloud_conf_equal(a, b), text);
}

static void check_word(const char *s)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	_cleanup_free_ char *name = download_name(s), *escaped = http_escape(s);
	_cleanup_free_ char *client = client_escape(s), *shown = NULL;

	check_numbers(s);
	check_key(s);
	(void)h2o_locks("GET", s);
	if (strv_add_words(&words, s) < 0)
		fuzz_check(words.n == 0);
	fuzz_check(!strpbrk(escaped, " /?#&=\r\n") && !strpbrk(client, " /?#&=\r\n"));
	if (!name)
		return;
	shown = text_utf8(name);
	fuzz_check_harmless(shown, strlen(shown));
	fuzz_check_text(*name && *name != '.' && !strchr(name, '/') && !strchr(name, '\n'), name);
}

/* --- the whole ---------------------------------------------------------------------------- */

void fuzz_begin(void)
{
	setenv("H2OFLEET_SOCKET", "/dev/null", 1); /* there is something: it is connected to */
	setenv("http_proxy", "http://192.0.2.1:3128", 1);
	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	cli_world_begin();
	fuzz_be_quiet();
}

static struct strv split(const char *text)
{
	struct strv words = STRV_NULL;

	while (words.n < MAX_WORDS) {
		size_t n = strcspn(text, "\n");

		strv_take(&words, xstrndup(text, n));
		if (!text[n])
			break;
		text += n + 1;
	}
	return words;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	size_t width;

	input = (struct fuzz_input){data, size};
	text = fuzz_part(&input, NULL);
	words = split(text);
	width = take_width(&words);
	if (streq(words.v[0], "h2ofleetd")) {
		run_daemon_options(&words);
	} else if (streq(words.v[0], "word")) {
		for (size_t i = 1; i < words.n; i++)
			check_word(words.v[i]);
	} else {
		if (cli_world_files(&words, &input) && is_allowed(&words) && add_config(&words))
			run_command(&words, width);
		fuzz_empty_dir();
	}
	return 0;
}

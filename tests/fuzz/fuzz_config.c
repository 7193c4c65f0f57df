/* A configuration file. What parses prints, and parses again to the same; a difference to itself is
 * none; each error has its place, and is one line. */
#include "fuzz.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/strbuf.h"
#include "conf/conf.h"
#include "conf/created.h"
#include "conf/diff.h"

static int file = -1;
static char path[64];

void fuzz_begin(void)
{
	file = memfd_create("fuzz.conf", MFD_CLOEXEC);
	fuzz_check(file >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
}

static int load(const void *text, size_t len, struct conf **out, struct conf_errors *errors)
{
	fuzz_check(ftruncate(file, 0) == 0);
	fuzz_check(pwrite(file, text, len, 0) == (ssize_t)len);
	return conf_load(path, out, errors);
}

static unsigned count_lines(const uint8_t *data, size_t size)
{
	unsigned n = 1;

	for (size_t i = 0; i < size; i++)
		n += data[i] == '\n' || data[i] == '\r';
	return n;
}

/* "FILE:LINE: sentence" */
static void check_error(const char *e, unsigned n_lines)
{
	size_t n = strlen(path);
	char *end;
	unsigned long line;

	fuzz_check_text(strncmp(e, path, n) == 0 && e[n] == ':', e);
	line = strtoul(e + n + 1, &end, 10);
	if (!has_prefix(end, " more errors in this file"))
		fuzz_check_text(line >= 1 && line <= n_lines && has_prefix(end, ": ") && end[2], e);
	fuzz_check_text(!strchr(e, '\n'), e);
}

/* Owned by the caller. */
static char *print(const struct conf *c, bool help, size_t *len)
{
	struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	conf_print(c, f, help);
	fclose(f);
	*len = text.len;
	return strbuf_take(&text);
}

static void check_same(const struct conf *a, const struct conf *b)
{
	struct conf_diff d;

	conf_diff_make(a, b, &d);
	fuzz_check(d.fleet.n == 0);
	for (size_t i = 0; i < d.n; i++)
		fuzz_check_text(
			d.clouds[i].kind == CHANGE_NONE && !d.clouds[i].keys.n, d.clouds[i].name);
	conf_diff_clear(&d);
	fuzz_check(a->n_clouds == b->n_clouds);
	for (size_t i = 0; i < a->n_clouds; i++)
		fuzz_check(streq(a->clouds[i]->name, b->clouds[i]->name) &&
			   cloud_conf_equal(a->clouds[i], b->clouds[i]));
}

static void check_prints(const struct conf *c, bool help)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *again = NULL;
	size_t len, len_again;
	_cleanup_free_ char *text = print(c, help, &len), *text_again = NULL;
	int r = load(text, len, &again, &errors);

	fuzz_check_text(r == 0, errors.list.n ? errors.list.v[0] : strerror(-r));
	check_same(c, again);
	text_again = print(again, help, &len_again);
	fuzz_check_text(len == len_again && memcmp(text, text_again, len) == 0, text_again);
}

/* As the file of a cloud that was made at run time. */
static void check_created(const struct cloud_conf *c)
{
	_cleanup_free_ char *text = created_text(c, NULL), *warning = cloud_conf_warning(c);
	_cleanup_(cloud_conf_freep) struct cloud_conf *dup = cloud_conf_dup(c), *again = NULL;

	cloud_conf_copy_origin(dup, c);
	fuzz_check(cloud_conf_equal(c, dup));
	fuzz_check(created_hash(c, true) == created_hash(dup, true));
	fuzz_check(cloud_conf_check(c, c->baseport, NULL) == 0);
	fuzz_check(!warning || *warning);
	if (!text) /* what cannot be written so is refused */
		return;
	again = conf_parse_cloud(text, strlen(text), c->name);
	fuzz_check_text(again && cloud_conf_equal(c, again), text);
	/* What goes by whose it is stays: `created` was not set. */
	fuzz_check(created_hash(c, true) == created_hash(again, true));
}

static void check_places(const struct conf *c, unsigned n_lines)
{
	for (size_t i = 0; i < c->n_places; i++) {
		const struct conf_place *p = &c->places[i];

		fuzz_check(streq(p->file, path) && p->line >= 1 && p->line <= n_lines);
		fuzz_check(!p->cloud || conf_find_cloud(c, p->cloud));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;
	unsigned n_lines = count_lines(data, size);
	int r = load(data, size, &c, &errors);

	if (r < 0) {
		fuzz_check(!c && errors.list.n > 0 && (r == -EINVAL || size > 1u << 20));
		for (size_t i = 0; i < errors.list.n; i++)
			check_error(errors.list.v[i], n_lines);
		return 0;
	}
	fuzz_check(errors.list.n == 0 && c->n_clouds > 0);
	check_places(c, n_lines);
	check_same(c, c);
	check_prints(c, false);
	check_prints(c, true);
	for (size_t i = 0; i < c->n_clouds; i++)
		check_created(c->clouds[i]);
	return 0;
}

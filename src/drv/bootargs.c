/* The arguments of `h2ofleetd --build-boot-cache`. */
#include <errno.h>
#include <inttypes.h>

#include "base/text.h"
#include "drv/bootbuild.h"

static void add_text(struct strv *argv, const char *name, const char *value)
{
	if (value)
		strv_printf(argv, "%s=%s", name, value);
}

static void add_number(struct strv *argv, const char *name, uint64_t value)
{
	if (value)
		strv_printf(argv, "%s=%" PRIu64, name, value);
}

void bootbuild_add_args(const struct boot_build *rq, struct strv *argv)
{
	add_text(argv, "cache_dir", rq->cache_dir);
	add_text(argv, "java", rq->runtime.java);
	add_number(argv, "java_major", (uint64_t)rq->runtime.java_major);
	add_text(argv, "jar", rq->runtime.jar);
	add_text(argv, "extra_classpath", rq->runtime.extra_classpath);
	add_text(argv, "main_class", rq->runtime.main_class);
	add_number(argv, "big_heap", rq->runtime.big_heap);
	add_number(argv, "native_only", rq->native_only);
	add_number(argv, "again", rq->again);
	add_number(argv, "idle", rq->idle);
	add_number(argv, "max_total", rq->max_total);
	add_number(argv, "node_timeout_ms", rq->node_timeout_ms);
	add_text(argv, "archive", rq->archive);
}

static int take_text(const char *arg, const char *name, const char **value)
{
	size_t n = strlen(name);

	if (strncmp(arg, name, n) != 0 || arg[n] != '=')
		return 0;
	*value = arg + n + 1;
	return 1;
}

/* 1: it was this one; 0: it is another; -EINVAL. */
static int take_number(const char *arg, const char *name, uint64_t *value)
{
	const char *text;
	int64_t n;

	if (!take_text(arg, name, &text))
		return 0;
	if (text_parse_int(text, &n) < 0 || n < 0)
		return -EINVAL;
	*value = (uint64_t)n;
	return 1;
}

static int take_arg(const char *arg, struct boot_build *rq)
{
	struct boot_runtime *rt = &rq->runtime;
	const struct {
		const char *name;
		const char **value;
	} texts[] = {{"cache_dir", &rq->cache_dir}, {"java", &rt->java}, {"jar", &rt->jar},
		{"extra_classpath", &rt->extra_classpath}, {"main_class", &rt->main_class},
		{"archive", &rq->archive}};
	uint64_t major = 0, flag = 0;
	const struct {
		const char *name;
		bool *value;
	} flags[] = {{"big_heap", &rt->big_heap}, {"native_only", &rq->native_only},
		{"again", &rq->again}, {"idle", &rq->idle}};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(texts) && r == 0; i++)
		r = take_text(arg, texts[i].name, texts[i].value);
	for (size_t i = 0; i < ARRAY_SIZE(flags) && r == 0; i++) {
		r = take_number(arg, flags[i].name, &flag);
		*flags[i].value = r > 0 ? flag != 0 : *flags[i].value;
	}
	if (r == 0) {
		r = take_number(arg, "java_major", &major);
		rt->java_major = r > 0 && major < 1000 ? (int)major : rt->java_major;
	}
	if (r == 0)
		r = take_number(arg, "max_total", &rq->max_total);
	if (r == 0)
		r = take_number(arg, "node_timeout_ms", &rq->node_timeout_ms);
	return r > 0 ? 0 : -EINVAL;
}

int bootbuild_parse_args(char *const *args, struct boot_build *rq)
{
	*rq = (struct boot_build){0};
	for (; *args; args++)
		if (take_arg(*args, rq) < 0)
			return -EINVAL;
	return rq->cache_dir && *rq->cache_dir == '/' && rq->runtime.java && rq->runtime.jar &&
			       rq->runtime.java_major > 0
		       ? 0
		       : -EINVAL;
}

/* Which Java it is: `java -version`, run once for all clouds that wait for the same answer. It is
 * not kept, for what a path starts may be another Java the next time. */
#include <errno.h>

#include "base/log.h"
#include "core/internal.h"
#include "drv/runtime.h"

#define JAVA_PROBE_MS 20000

struct java_probe {
	struct java_probe *next;
	struct fleet *fleet;
	struct command *command;
	char *java; /* owned */
};

static void probe_free(struct java_probe *p)
{
	if (p->command)
		command_cancel(p->command);
	free(p->java);
	free(p);
}

static void probe_remove(struct java_probe *p)
{
	struct java_probe **at = &p->fleet->java_probes;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	probe_free(p);
}

static struct java_probe *probe_of(const struct fleet *f, const char *java)
{
	struct java_probe *p = f->java_probes;

	while (p && !streq(p->java, java))
		p = p->next;
	return p;
}

static bool awaits(const struct supervised *s, const struct java_probe *p)
{
	return s->awaits_java && streq(s->runtime.java, p->java);
}

/* NULL: it is usable. Owned by the caller. */
static char *complaint(
	const struct java_probe *p, int exit_code, int exec_errno, const char *output)
{
	_cleanup_free_ char *first = xstrndup(output, strcspn(output, "\n"));

	return xasprintf("%s is no usable Java: `java -version` %s%s%s", p->java,
		exec_errno      ? strerror(exec_errno)
		: exit_code < 0 ? "was killed or did not end in time"
				: "failed",
		*first ? ": " : "", first);
}

static void on_answer(int exit_code, int exec_errno, const char *output, void *arg)
{
	struct java_probe *p = arg;
	_cleanup_free_ char *version = NULL, *sentence = NULL;
	/* What was killed, or had no processor, may do better the next time. */
	int major = 0, r = exec_errno ? -exec_errno : exit_code < 0 ? -EBUSY : -ENOEXEC;

	p->command = NULL;
	if (exec_errno || exit_code || runtime_parse_java_version(output, &major, &version) < 0)
		sentence = complaint(p, exit_code, exec_errno, output);
	for (size_t i = 0; i < p->fleet->n; i++) {
		struct supervised *s = p->fleet->clouds[i];

		if (!awaits(s, p))
			continue;
		s->awaits_java = false;
		if (sentence)
			launch_java_failed(s, r, sentence);
		else
			launch_java_is_known(s, major, version);
	}
	probe_remove(p);
}

int java_ask(struct supervised *s, struct err *e)
{
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	const char *java = s->runtime.java;
	struct java_probe *p = probe_of(s->fleet, java);
	int r;

	s->awaits_java = true;
	if (p)
		return 0;
	p = xcalloc(1, sizeof(*p));
	*p = (struct java_probe){s->fleet->java_probes, s->fleet, NULL, xstrdup(java)};
	s->fleet->java_probes = p;
	plan_clean_env(environ, &env);
	r = command_run(s->fleet->loop, (char *const[]){p->java, (char *)"-version", NULL}, env.v,
		JAVA_PROBE_MS, on_answer, p, &p->command);
	if (r == 0)
		return 0;
	s->awaits_java = false;
	err_set_errno(e, r, "cannot run %s -version", java);
	probe_remove(p);
	return r;
}

void java_forget(struct supervised *s)
{
	struct java_probe *p = s->awaits_java ? probe_of(s->fleet, s->runtime.java) : NULL;

	s->awaits_java = false;
	for (size_t i = 0; p && i < s->fleet->n; i++)
		if (awaits(s->fleet->clouds[i], p))
			return;
	if (p)
		probe_remove(p);
}

void java_free(struct fleet *f)
{
	struct java_probe *p;

	while ((p = f->java_probes)) {
		f->java_probes = p->next;
		probe_free(p);
	}
}

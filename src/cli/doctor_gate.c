/* Who may come in, for doctor. */
#include "cli/checks.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>

/* Is that a user or a group of this machine? A database that cannot be asked is no evidence. */
static bool exists(const char *word)
{
	const void *found;

	errno = 0;
	if (has_prefix(word, "user:"))
		found = getpwnam(word + strlen("user:"));
	else if (has_prefix(word, "group:"))
		found = getgrnam(word + strlen("group:"));
	else
		return true;
	return found || (errno && errno != ENOENT && errno != ESRCH);
}

void check_gate(struct doctor *d)
{
	for (size_t i = 0; i < d->conf->n_clouds; i++) {
		const struct cloud_conf *c = d->conf->clouds[i];
		_cleanup_(strbuf_free) struct strbuf unknown = STRBUF_NULL;
		_cleanup_free_ char *warning = cloud_conf_warning(c), *context = NULL;

		context = xasprintf("cloud %s: ", c->name);
		if (warning)
			doctor_add_sentence(d, "gate", CHECK_WARNING, context, warning, NULL);
		for (size_t k = 0; k < c->gate_allow.n; k++)
			if (!exists(c->gate_allow.v[k]))
				doctor_list(&unknown, "%s", c->gate_allow.v[k]);
		if (unknown.len)
			doctor_add(d, "gate", CHECK_WARNING,
				"correct gate_allow, or make them: nobody is let in by these",
				"%sthere is no %s here", context, strbuf_str(&unknown));
	}
}

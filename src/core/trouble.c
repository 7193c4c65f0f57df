#include "core/trouble.h"

#include <errno.h>

#include "base/log.h"
#include "core/internal.h"

static const struct {
	const char *name, *begins, *over;
} kinds[N_TROUBLE_KINDS] = {
	[TROUBLE_STATE] = {"state",
		"its state cannot be written, so a new daemon would not know of the latest changes",
		"its state is written"},
	[TROUBLE_LAUNCH] = {"launch", "its nodes cannot be launched", "its nodes can be launched"},
	[TROUBLE_POLLS] = {"polls", "nodes cannot be asked, which counts against none of them",
		"nodes are asked"},
	[TROUBLE_SOCKET] = {"socket", "the control socket does not work",
		"the control socket works"},
	[TROUBLE_LOGS] = {"logs", "its logs are not rotated, and grow", "its logs are rotated"},
	[TROUBLE_GATE] = {"gate", "clients cannot come in", "clients can come in"},
	[TROUBLE_BOOT] = {"boot-cache", "the boot cache cannot be made, so nodes start slowly",
		"the boot cache can be made"},
	[TROUBLE_DISK] = {"disk", "no room", "there is room"},
};

const char *trouble_kind_name(enum trouble_kind kind)
{
	return kinds[kind].name;
}

/* The place of its link, or of the end of the list. */
static struct trouble **find(const struct fleet *f, enum trouble_kind kind, const char *cloud)
{
	struct trouble **at = (struct trouble **)&f->troubles;

	while (*at && ((*at)->kind != kind || !streq_null((*at)->cloud, cloud)))
		at = &(*at)->next;
	return at;
}

bool trouble_is_set(const struct fleet *f, enum trouble_kind kind, const char *cloud)
{
	return *find(f, kind, cloud) != NULL;
}

static void say(struct fleet *f, const struct trouble *t, bool begins)
{
	const struct cloud *c = t->cloud ? fleet_find(f, t->cloud) : NULL;
	const char *what = begins ? kinds[t->kind].begins : "well again";
	const char *detail = begins ? t->sentence : kinds[t->kind].over;
	_cleanup_free_ char *line = xasprintf("%s%s%s%s: %s", t->cloud ? "cloud " : "",
		t->cloud ? t->cloud : "", t->cloud ? ": " : "", what, detail);

	log_write(begins ? LOG_LEVEL_ERROR : LOG_LEVEL_NOTICE, "%s", line);
	fleet_event(f, begins ? "trouble" : "trouble-over", c, -1,
		json_pack("{s:s}", "kind", kinds[t->kind].name), "%s", line);
}

void trouble_set(struct fleet *f, enum trouble_kind kind, const char *cloud, const char *sentence)
{
	struct trouble **at = find(f, kind, cloud), *t = *at;

	if (t) {
		replace_str(&t->sentence, sentence);
		f->changes++;
		return;
	}
	t = *at = xcalloc(1, sizeof(*t));
	*t = (struct trouble){kind, xstrdup_null(cloud), xstrdup(sentence), fleet_now(f), NULL};
	say(f, t, true);
}

static void trouble_free(struct trouble *t)
{
	free(t->cloud);
	free(t->sentence);
	free(t);
}

void trouble_clear(struct fleet *f, enum trouble_kind kind, const char *cloud)
{
	struct trouble **at = find(f, kind, cloud), *t = *at;

	if (!t)
		return;
	*at = t->next;
	say(f, t, false);
	trouble_free(t);
}

void troubles_free(struct fleet *f)
{
	while (f->troubles) {
		struct trouble *t = f->troubles;

		f->troubles = t->next;
		trouble_free(t);
	}
	free(TAKE_PTR(f->trouble_line));
}

const struct trouble *fleet_troubles(const struct fleet *f)
{
	return f->troubles;
}

const char *fleet_trouble(const struct fleet *f)
{
	const struct trouble *t = f->troubles;
	char **line = (char **)&f->trouble_line; /* made when asked for */
	unsigned more = 0;

	if (!t)
		return NULL;
	for (const struct trouble *o = t->next; o; o = o->next)
		more++;
	free(*line);
	*line = more ? xasprintf("%s%s%s, and %u more", t->cloud ? t->cloud : "",
			       t->cloud ? ": " : "", t->sentence, more)
		     : xasprintf("%s%s%s", t->cloud ? t->cloud : "", t->cloud ? ": " : "",
			       t->sentence);
	return *line;
}

const char *trouble_advice(int r)
{
	switch (r) {
	case -EMFILE:
		return "; give the daemon more descriptors (LimitNOFILE=, ulimit -n)";
	case -ENFILE:
		return "; the machine has no descriptors left (sysctl fs.file-max)";
	case -EAGAIN:
		return "; allow more processes (TasksMax=, ulimit -u, pids limit of the container)";
	case -ENOMEM:
	case -ENOBUFS:
		return "; the machine or the daemon's control group has no memory left";
	case -EADDRNOTAVAIL:
		return "; all ports for outgoing connections are in use";
	case -ENOSPC:
	case -EDQUOT:
		return "; make room";
	case -EROFS:
		return "; mount it for writing again";
	default:
		return "";
	}
}

bool trouble_is_shortage(int r)
{
	switch (r) {
	case -EMFILE:
	case -ENFILE:
	case -EAGAIN:
	case -ENOMEM:
	case -ENOBUFS:
	case -ENOSPC:
	case -EDQUOT:
	case -EROFS:
	case -EIO:
		return true;
	default:
		return false;
	}
}

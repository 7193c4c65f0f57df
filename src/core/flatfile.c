/* The members' flatfiles, through which they find one another.
 *
 * A first connect to a peer that does not listen yet costs H2O 5 s of silence towards it
 * (water/H2ONode.java), and a cloud is whole 2 to 3 s after its members' first heartbeats if all of
 * them reach all others with the first one, a second more if some only answer. H2O reads its
 * flatfile after it listens to its peers, but before it sends anything
 * (water/init/NetworkInit.java, initializeNetworkSockets()). So each flatfile is a named pipe,
 * which is written to once all members listen, however slow one of them boots; and a few members
 * are let go on one after the other, for their heartbeats need a round less when they do not come
 * at the same moment (measured: tests/bench/RESULTS.md, "How a cloud forms").
 *
 * A pipe is opened, written and closed at once: a daemon that is killed leaves nobody with half of
 * a list, and the next one goes on. Nobody waits for longer than LATE_MS for one that does not come
 * up: those who are there get one another, and who comes later gets all of these. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "core/internal.h"
#include "drv/ports.h"

#define LOOK_MS 10
/* As long as H2O's own penalty, so waiting costs no more than it saves. */
#define LATE_MS 5000
/* Between two members' first heartbeats. With more members it would take longer than it saves. */
#define STAGGER_MS  100
#define STAGGER_MAX 3

static void on_closed(uv_handle_t *h)
{
	free(h);
}

void flatfiles_forget(struct supervised *s)
{
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		s->members[i].awaits_flatfile = false;
	free(TAKE_PTR(s->meeting.here));
	if (s->meeting.timer)
		uv_close((uv_handle_t *)TAKE_PTR(s->meeting.timer), on_closed);
}

static bool is_forming(const struct supervised *s)
{
	return s->cloud->state == CLOUD_STARTING || s->cloud->state == CLOUD_FORMING;
}

static bool listens(const struct supervised *s, const struct member *m)
{
	uint16_t internal = (uint16_t)(s->cloud->nodes[m->index].api_port + 1);

	return !port_is_open_to_jvm(MEMBER_ADDR, internal);
}

/* False: it is not there yet to read. One that is gone, or has read already, never is. */
static bool give(const struct supervised *s, struct member *m)
{
	_cleanup_close_ int fd = open(m->flatfile, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	_cleanup_free_ char *text = NULL;

	if (fd < 0)
		return false;
	text = plan_flatfile(s->cloud, s->meeting.here);
	if (write(fd, text, strlen(text)) < 0)
		log_debug("cloud %s: node %u did not read its flatfile: %s", s->cloud->conf->name,
			m->index, strerror(errno));
	m->awaits_flatfile = false;
	return true;
}

/* How many are there, and whether that is all. */
static bool all_here(struct supervised *s)
{
	unsigned n = 0;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		s->meeting.here[i] = s->meeting.here[i] || listens(s, &s->members[i]);
		n += s->meeting.here[i];
	}
	if (n && !s->meeting.late_ms)
		s->meeting.late_ms = fleet_now(s->fleet) + LATE_MS;
	return n == s->cloud->n_nodes;
}

/* Those that may go on now, do. Member 0 is the last: clients without a gate come to it, and what
 * locks a cloud is answered once it has heard of the others. True: nobody waits any more. */
static bool give_all(struct supervised *s, uint64_t now)
{
	uint64_t gap = s->cloud->n_nodes <= STAGGER_MAX ? STAGGER_MS : 0;
	bool done = true;

	for (size_t i = s->cloud->n_nodes; i-- > 0;) {
		struct member *m = &s->members[i];

		if (!m->awaits_flatfile)
			continue;
		if (s->meeting.here[i] && now >= s->meeting.next_ms && give(s, m))
			s->meeting.next_ms = now + gap;
		else
			done = false;
	}
	return done;
}

static void on_look(uv_timer_t *t)
{
	struct supervised *s = t->data;
	uint64_t now = fleet_now(s->fleet);
	bool all;

	if (!is_forming(s)) {
		flatfiles_forget(s);
		return;
	}
	all = all_here(s);
	if ((all || (s->meeting.late_ms && now >= s->meeting.late_ms)) && give_all(s, now))
		flatfiles_forget(s);
}

static void look_out(struct supervised *s)
{
	if (s->meeting.timer && s->meeting.generation == s->cloud->generation)
		return;
	free(s->meeting.here);
	s->meeting.generation = s->cloud->generation;
	s->meeting.here = xcalloc(s->cloud->n_nodes, sizeof(*s->meeting.here));
	s->meeting.late_ms = s->meeting.next_ms = 0;
	if (s->meeting.timer)
		return;
	s->meeting.timer = xcalloc(1, sizeof(*s->meeting.timer));
	s->meeting.timer->data = s;
	uv_timer_init(s->fleet->loop, s->meeting.timer);
	uv_timer_start(s->meeting.timer, on_look, LOOK_MS, LOOK_MS);
}

/* Where the file system has no named pipes, and for one that has no peers: a file. */
static int make_file(const struct supervised *s, const struct member *m, struct err *e)
{
	_cleanup_free_ char *text = plan_flatfile(s->cloud, NULL);

	return file_write_atomic(m->flatfile, text, strlen(text), 0640, false, e);
}

int flatfile_make(struct member *m, struct err *e)
{
	struct supervised *s = m->s;

	m->awaits_flatfile = false;
	if (s->cloud->n_nodes == 1)
		return make_file(s, m, e);
	if (unlink(m->flatfile) < 0 && errno != ENOENT)
		return err_set_errno(e, -errno, "cannot replace %s", m->flatfile);
	if (mkfifo(m->flatfile, 0600) < 0)
		return trouble_is_shortage(-errno)
			       ? err_set_errno(e, -errno, "cannot make %s", m->flatfile)
			       : make_file(s, m, e);
	m->awaits_flatfile = true;
	look_out(s);
	return 0;
}

void flatfiles_adopt(struct supervised *s)
{
	bool some = false;

	if (!is_forming(s) || s->cloud->n_nodes == 1)
		return;
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		some |= s->members[i].awaits_flatfile = s->members[i].proc != NULL;
	if (some) /* else it has no ports yet at which anybody could listen */
		look_out(s);
}

/* Is the supervisor itself well, and has its start come to an end? What systemd is told is made of
 * the answers (daemon/status.c). */
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

#include "base/file.h"
#include "core/internal.h"

int fleet_find_daemon(const struct fleet_conf *c, pid_t *pid)
{
	_cleanup_free_ char *lock = xasprintf("%s/lock", c->state_dir), *text = NULL;
	_cleanup_close_ int fd = open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	*pid = 0;
	if (fd < 0)
		return errno == ENOENT ? -ENOENT
				       : 0; /* what else is wrong is found by who goes on */
	if (flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
		return 0;
	if (file_read(lock, 64, &text, NULL) == 0)
		*pid = (pid_t)strtol(text, NULL, 10);
	return -EBUSY;
}

static bool settled(const struct supervised *s, bool usable)
{
	if (s->cloud->wanted != WANTED_RUNNING)
		return true;
	switch (s->cloud->state) {
	case CLOUD_READY:
	case CLOUD_DEGRADED:
	case CLOUD_BACKOFF: /* its first try has failed; more may follow for ever */
	case CLOUD_FAILED:
		return true;
	case CLOUD_FORMING:
		return !usable;
	case CLOUD_STOPPED:
	case CLOUD_STARTING:
	case CLOUD_RECOVERING:
	case CLOUD_STOPPING:
		break;
	}
	return false;
}

bool fleet_settled(const struct fleet *f, bool usable)
{
	for (size_t i = 0; i < f->n; i++)
		if (!settled(f->clouds[i], usable))
			return false;
	return true;
}

uint64_t fleet_overdue_ms(struct fleet *f)
{
	uint64_t now = fleet_now(f), most = 0;

	for (size_t i = 0; i < f->n; i++) {
		uint64_t due = f->clouds[i]->timer_due;

		if (due && due < now)
			most = MAX(most, now - due);
	}
	return most;
}

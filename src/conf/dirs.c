#include "conf/dirs.h"

#include <pwd.h>

/* The first of systemd's colon-separated list, or NULL. */
static char *from_systemd(const char *variable)
{
	const char *s = getenv(variable);

	return s && *s == '/' ? xstrndup(s, strcspn(s, ":")) : NULL;
}

/* The XDG specification wants relative paths ignored. */
static char *from_xdg(const char *variable, const char *below_home)
{
	const char *s = getenv(variable);
	_cleanup_free_ char *home = NULL;

	if (s && *s == '/')
		return xasprintf("%s/h2ofleet", s);
	home = dirs_home();
	return xasprintf("%s/%s/h2ofleet", home, below_home);
}

char *dirs_home(void)
{
	const char *s = getenv("HOME");
	const struct passwd *pw;

	if (s && *s == '/')
		return xstrdup(s);
	pw = getpwuid(geteuid());
	return xstrdup(pw && pw->pw_dir && *pw->pw_dir == '/' ? pw->pw_dir : "/");
}

char *dirs_config(uid_t uid)
{
	return uid == 0 ? xstrdup(PKGSYSCONFDIR) : from_xdg("XDG_CONFIG_HOME", ".config");
}

char *dirs_socket(uid_t uid)
{
	_cleanup_free_ char *dir = from_systemd("RUNTIME_DIRECTORY");
	const char *run = getenv("XDG_RUNTIME_DIR");

	if (!dir && uid == 0)
		dir = xstrdup("/run/h2ofleet");
	if (!dir && run && *run == '/')
		dir = xasprintf("%s/h2ofleet", run);
	if (!dir)
		dir = xasprintf("/tmp/h2ofleet-%u", (unsigned)uid);
	return xasprintf("%s/control.sock", dir);
}

char *dirs_state(uid_t uid)
{
	char *dir = from_systemd("STATE_DIRECTORY");

	if (dir)
		return dir;
	return uid == 0 ? xstrdup("/var/lib/h2ofleet") : from_xdg("XDG_STATE_HOME", ".local/state");
}

char *dirs_cache(uid_t uid)
{
	char *dir = from_systemd("CACHE_DIRECTORY");

	if (dir)
		return dir;
	return uid == 0 ? xstrdup("/var/cache/h2ofleet") : from_xdg("XDG_CACHE_HOME", ".cache");
}

char *dirs_log(uid_t uid)
{
	char *dir = from_systemd("LOGS_DIRECTORY");

	if (dir)
		return dir;
	return uid == 0 ? xstrdup("/var/log/h2ofleet") : NULL;
}

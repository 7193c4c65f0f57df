/* The configuration of a run's private daemon. */
#include "cli/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "base/file.h"
#include "base/strbuf.h"

/* What is different from a cloud that is to stay: it fails soon, and ends soon. */
static const char *const defaults[][2] = {
	{"auto_recovery_dir", "off"},
	{"start_limit", "3 in 10m"},
	{"stop_timeout", "3s"},
};

/* The boot cache is the user's and outlives the run. Most runs are over before anything is made for
 * it: those who come back for more of them had better say `h2ofleet prepare` once. */
#define BOOT_DELAY_MS 60000

static int new_conf(struct conf **out)
{
	static const char text[] = "[cloud " RUN_CLOUD "]\n";
	struct conf_errors errors = {0};
	_cleanup_free_ char *path = NULL;
	_cleanup_close_ int fd = memfd_create("h2ofleet.conf", MFD_CLOEXEC);
	int r;

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		return -errno;
	path = xasprintf("/proc/self/fd/%d", fd);
	r = conf_load(path, out, &errors);
	conf_errors_free(&errors);
	return r;
}

/* Below the kernel's range for outgoing connections, from which any client could take a port, and
 * away from 54321, where configured clouds are. Who comes second at a port moves on; that many runs
 * begin in different places only spares them the way. */
static unsigned choose_port(void)
{
	_cleanup_free_ char *text = NULL;
	unsigned first = 0, n;

	if (file_read("/proc/sys/net/ipv4/ip_local_port_range", 64, &text, NULL) == 0)
		first = (unsigned)strtoul(text, NULL, 10);
	if (getrandom(&n, sizeof(n), 0) != sizeof(n))
		n = (unsigned)getpid();
	return first >= 24000 && first < 65536 ? first - 12000 + n % 170 * 64 : 54321;
}

static void set_fleet(struct fleet_conf *f, const struct run_place *p)
{
	_cleanup_free_ char *state = xasprintf("%s/state", p->dir);
	_cleanup_free_ char *log = xasprintf("%s/log", p->dir);

	replace_str(&f->socket, p->socket);
	replace_str(&f->state_dir, state);
	replace_str(&f->log_dir, log);
	f->scopes = SCOPES_NO;
	f->fast_boot_delay_ms = BOOT_DELAY_MS;
}

static int set_path(struct cloud_conf *c, const char *key, const char *path, struct err *e)
{
	_cleanup_free_ char *whole = NULL;

	if (!path)
		return 0;
	whole = realpath(path, NULL);
	if (!whole)
		return err_set_errno(e, -errno, "cannot use %s", path);
	return cloud_conf_set(c, key, whole, e);
}

static int set_all(struct cloud_conf *c, const struct strv *settings, struct err *e)
{
	for (size_t i = 0; i < settings->n; i++) {
		const char *word = settings->v[i], *value = strchr(word, '=');
		_cleanup_free_ char *key = xstrndup(word, value ? (size_t)(value - word) : 0);
		int r;

		if (!value)
			return err_set(e, -EINVAL, "--set %s: write KEY=VALUE", word);
		r = cloud_conf_set(c, key, value + 1, e);
		if (r < 0) {
			err_wrap(e, "--set %s", word);
			return r;
		}
	}
	return 0;
}

static int set_cloud(const struct run *r, struct cloud_conf *c, struct err *e)
{
	_cleanup_free_ char *port = xasprintf("%u+", choose_port());
	int code = cloud_conf_set(c, "port", port, e);

	for (size_t i = 0; code == 0 && i < ARRAY_SIZE(defaults); i++)
		code = cloud_conf_set(c, defaults[i][0], defaults[i][1], e);
	if (code == 0 && r->nodes)
		code = cloud_conf_set(c, "nodes", r->nodes, e);
	if (code == 0 && r->memory)
		code = cloud_conf_set(c, "max_mem_size", r->memory, e);
	if (code == 0)
		code = set_path(c, "java", r->java, e);
	if (code == 0)
		code = set_path(c, "jar_path", r->jar, e);
	if (code == 0)
		code = set_all(c, &r->settings, e);
	return code;
}

int run_configure(struct run *r, struct err *e)
{
	int code = new_conf(&r->conf);
	struct cloud_conf *c;

	if (code < 0)
		return err_set_errno(e, code, "cannot make a configuration");
	c = r->conf->clouds[0];
	set_fleet(&r->conf->fleet, &r->place);
	code = set_cloud(r, c, e);
	if (code == 0)
		code = cloud_conf_check(c, r->conf->fleet.baseport, e);
	/* Everything else stays in our own control group, and what limits or ends that. */
	if (code == 0 && (c->memory_max.kind != MEM_UNSET || c->cpu_quota))
		r->conf->fleet.scopes = SCOPES_YES;
	return code;
}

int run_write_conf(const struct run *r, struct err *e)
{
	_cleanup_(strbuf_free) struct strbuf text = STRBUF_NULL;
	FILE *f = strbuf_stream(&text);

	conf_print(r->conf, f, false);
	fclose(f);
	return file_write_atomic(r->place.config, text.s, text.len, 0600, false, e);
}

/* ---- the daemon ---- */

static char *if_executable(char *path)
{
	if (access(path, X_OK) == 0)
		return path;
	free(path);
	return NULL;
}

static char *find_on_path(const char *name)
{
	const char *path = getenv("PATH");

	while (path && *path) {
		size_t n = strcspn(path, ":");
		char *found = *path == '/' ? if_executable(xasprintf("%.*s/%s", (int)n, path, name))
					   : NULL;

		if (found)
			return found;
		path += n + (path[n] == ':');
	}
	return NULL;
}

char *run_find_daemon(struct err *e)
{
	static const char *const places[] = {"", "/../sbin"};
	char us[4096], *found = NULL;
	ssize_t n = readlink("/proc/self/exe", us, sizeof(us) - 1);
	char *slash;

	us[MAX(n, 0)] = '\0';
	slash = strrchr(us, '/');
	if (slash)
		*slash = '\0';
	for (size_t i = 0; !found && i < ARRAY_SIZE(places); i++)
		found = if_executable(xasprintf("%s%s/h2ofleetd", us, places[i]));
	if (!found)
		found = find_on_path("h2ofleetd");
	if (!found)
		err_set(e, -ENOENT,
			"there is no h2ofleetd beside this program (%s), in ../sbin or on the PATH",
			us);
	return found;
}

/* A service that we run in is not the daemon's: it must not speak for it, nor use its directories.
 */
static bool is_of_another_service(const char *variable)
{
	static const char *const names[] = {
		"NOTIFY_SOCKET=", "WATCHDOG_PID=", "WATCHDOG_USEC=", "LISTEN_PID=", "LISTEN_FDS=",
		"LISTEN_FDNAMES=", "INVOCATION_ID=", "JOURNAL_STREAM=", "MAINPID=", "MANAGERPID=",
		"SYSTEMD_EXEC_PID=", "RUNTIME_DIRECTORY=", "STATE_DIRECTORY=", "CACHE_DIRECTORY=",
		"LOGS_DIRECTORY=", "CONFIGURATION_DIRECTORY=", "H2OFLEET_SOCKET=",
		"H2OFLEET_TOKEN=", "H2OFLEET_HANDOVER="};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (has_prefix(variable, names[i]))
			return true;
	return false;
}

void run_daemon_env(struct strv *env)
{
	for (char **v = environ; *v; v++)
		if (!is_of_another_service(*v))
			strv_add(env, *v);
}

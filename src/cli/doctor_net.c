/* The daemon and the ports, for doctor. */
#include "cli/checks.h"

#include <curl/curl.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/file.h"
#include "drv/packages.h"
#include "drv/ports.h"
#include "model/plan.h"

#define ANSWER_MAX        (4u << 20)
#define ANSWER_TIMEOUT_MS 5000L
#define RESERVED          "/proc/sys/net/ipv4/ip_local_reserved_ports"

static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
	struct strbuf *b = arg;

	if (b->len + size * n > ANSWER_MAX)
		return 0;
	strbuf_add(b, data, size * n);
	return size * n;
}

/* 0 and what the daemon says there (owned by the caller), or -EPROTO with a sentence. */
static int get(const char *socket_path, const char *target, json_t **answer, struct err *e)
{
	_cleanup_free_ char *url = xasprintf("http://localhost%s", target);
	_cleanup_(strbuf_free) struct strbuf body = STRBUF_NULL;
	char why[CURL_ERROR_SIZE] = "";
	CURL *c = curl_easy_init();
	long status = 0;
	CURLcode r;

	if (!c)
		return err_set(e, -ENOMEM, "cannot set up libcurl");
	curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, socket_path);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, ANSWER_TIMEOUT_MS);
	curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &body);
	r = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_cleanup(c);
	if (r != CURLE_OK)
		return err_set(e, -EPROTO, "%s", *why ? why : curl_easy_strerror(r));
	if (status != 200)
		return err_set(e, -EPROTO, "it answers with status %ld", status);
	*answer = json_loads(strbuf_str(&body), 0, NULL);
	return *answer ? 0 : err_set(e, -EPROTO, "it answers with something that is not JSON");
}

/* Every "api_port", "endpoint_port" and a gate's "port", wherever it stands. */
static void take_ports(struct doctor *d, const json_t *j)
{
	const char *key;
	json_t *value;
	size_t i;

	json_array_foreach (j, i, value) {
		take_ports(d, value);
	}
	json_object_foreach ((json_t *)j, key, value) {
		json_int_t port = json_integer_value(value);

		take_ports(d, value);
		if (!streq(key, "api_port") && !streq(key, "endpoint_port") && !streq(key, "port"))
			continue;
		if (port <= 0 || port > UINT16_MAX)
			continue;
		d->ports = xreallocarray(d->ports, d->n_ports + 1, sizeof(*d->ports));
		d->ports[d->n_ports++] = (uint16_t)port;
	}
}

static void daemon_answers(struct doctor *d, const char *path, const json_t *answer)
{
	_cleanup_(strbuf_free) struct strbuf names = STRBUF_NULL, failed = STRBUF_NULL;
	json_t *clouds = json_object_get(answer, "clouds");
	_cleanup_free_ char *advice = NULL;
	json_t *c;
	size_t i;

	d->daemon = true;
	take_ports(d, answer);
	json_array_foreach (clouds, i, c) {
		const char *name = json_string_value(json_object_get(c, "name"));
		const char *state = json_string_value(json_object_get(c, "state"));
		const char *reason = json_string_value(json_object_get(c, "reason"));
		bool has_failed = streq_null(state, "failed");

		if (!name)
			continue;
		if (!has_failed && !streq_null(state, "stopped"))
			strv_add(&d->clouds, name);
		doctor_list(&names, "%s (%s%s%s)", name, state ? state : "?",
			has_failed && reason ? ": " : "", has_failed && reason ? reason : "");
		if (has_failed)
			strbuf_printf(&failed, "%s%s", failed.len ? " " : "", name);
	}
	if (failed.len)
		advice = xasprintf("`h2ofleet status %s` tells more; a failed cloud stays so until "
				   "`h2ofleet start`",
			strbuf_str(&failed));
	doctor_add(d, "daemon", advice ? CHECK_WARNING : CHECK_OK, advice, "runs at %s: %s", path,
		names.len ? strbuf_str(&names) : "no clouds");
	doctor_boot(d, answer);
}

/* 0 and whose it is when somebody listens there, else a negative errno. */
static int try_connect(const char *path, uid_t *uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	if (fd < 0)
		return -errno;
	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	strcpy(a.sun_path, path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EAGAIN)
		return -errno;
	*uid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.uid : (uid_t)-1;
	return 0;
}

void check_daemon(struct doctor *d)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	const char *path = d->socket ? d->socket : env_value("H2OFLEET_SOCKET");
	json_t *answer = NULL;
	int r;

	if (!path && d->conf)
		path = d->conf->fleet.socket;
	if (!path)
		return;
	r = try_connect(path, &d->daemon_uid);
	if (r == -ENOENT || r == -ENOTDIR || r == -ECONNREFUSED) {
		doctor_add(d, "daemon", CHECK_OK,
			r == -ECONNREFUSED ? "nothing need be done: the next daemon replaces it"
					   : NULL,
			"none runs at %s%s", path,
			r == -ECONNREFUSED ? ", where a dead one has left its socket" : "");
		return;
	}
	if (r == -ENAMETOOLONG) {
		doctor_add(d, "daemon", CHECK_PROBLEM,
			"a path of a socket has at most 107 bytes: set socket to a shorter one",
			"socket = %s is too long", path);
		return;
	}
	d->daemon_silent = true;
	if (r < 0) {
		d->daemon_uid = (uid_t)-1;
		doctor_add(d, "daemon", CHECK_WARNING,
			r == -EACCES ? "ask as root, as the daemon's user, or as a member of the "
				       "socket's group"
				     : "look at what is there; the daemon replaces only sockets",
			"%s: %s", path, strerror(-r));
		return;
	}
	r = get(path, "/v1/clouds", &answer, &e);
	if (r < 0) {
		doctor_add(d, "daemon", CHECK_WARNING,
			"look at its log (journalctl -u h2ofleetd); without its answer it is not "
			"known which ports are its own",
			"somebody listens at %s, but tells nothing of clouds: %s", path,
			err_msg(&e));
		return;
	}
	d->daemon_silent = false;
	daemon_answers(d, path, answer);
	json_decref(answer);
	answer = NULL;
	if (get(path, "/v1/incidents", &answer, NULL) == 0) /* an older daemon has none */
		doctor_incidents(d, answer);
	json_decref(answer);
}

void check_user(struct doctor *d)
{
	bool runs = d->daemon || d->daemon_silent;

	if (!d->conf || (runs ? d->daemon_uid : geteuid()) != 0)
		return;
	doctor_add(d, "user", CHECK_WARNING,
		"run it as a user of its own; the unit file that comes with it does",
		"h2ofleetd %s as root, so whoever can connect to H2O can run code as root",
		runs ? "runs" : "started by this user would run");
}

static bool daemon_runs_cloud(const struct doctor *d, const char *name)
{
	for (size_t i = 0; i < d->clouds.n; i++)
		if (streq(d->clouds.v[i], name))
			return true;
	return false;
}

static bool daemon_has_port(const struct doctor *d, unsigned port)
{
	for (size_t i = 0; i < d->n_ports; i++)
		if (d->ports[i] == port || d->ports[i] + 1u == port)
			return true;
	return false;
}

/* The first port of each cloud; those that share an "N+" come one behind the other. */
static unsigned first_port(const struct conf *conf, size_t i, bool *exact)
{
	const struct cloud_conf *c = conf->clouds[i];
	unsigned port = c->port.port ? c->port.port : (unsigned)conf->fleet.baseport;

	*exact = c->port.port && c->port.exact;
	for (size_t k = 0; k < i && !*exact; k++) {
		const struct port_spec *o = &conf->clouds[k]->port;

		if ((!o->port || !o->exact) &&
			(o->port ? o->port : (unsigned)conf->fleet.baseport) ==
				(c->port.port ? c->port.port : (unsigned)conf->fleet.baseport))
			port += (unsigned)cloud_conf_n_ports(conf->clouds[k]);
	}
	return port;
}

/* The gate's. */
static void taken_by_others(
	const struct doctor *d, const struct cloud_conf *c, unsigned port, struct strbuf *b)
{
	struct door_port door = DOOR_PORT_NULL;
	int r = daemon_has_port(d, port)
			? 0
			: door_port_bind(!c->bind_to_localhost, (uint16_t)port, &door);

	door_port_release(&door);
	if (r == -EADDRINUSE) {
		_cleanup_free_ char *s = port_holder_sentence((uint16_t)port);

		doctor_list(b, "%s", s);
	} else if (r < 0) {
		doctor_list(b, "port %u cannot be used: %s", port, strerror(-r));
	}
}

/* Sentences on those of the cloud's ports that are taken by others than the daemon. */
static void taken_ports(
	const struct doctor *d, const struct cloud_conf *c, unsigned first, struct strbuf *b)
{
	const char *api_addr = plan_binds_to_localhost(c) ? MEMBER_ADDR : "0.0.0.0";

	if (c->gate_mode != GATE_OFF)
		taken_by_others(d, c, first++, b);
	for (unsigned i = 0; i < (unsigned)c->nodes && first + 2 * i + 1 <= UINT16_MAX; i++) {
		struct port_pair pair;
		uint16_t taken = 0;
		int r = port_pair_hold(
			api_addr, MEMBER_ADDR, (uint16_t)(first + 2 * i), &pair, &taken);

		port_pair_release(&pair);
		if (r == -EADDRINUSE && !daemon_has_port(d, taken)) {
			_cleanup_free_ char *s = port_holder_sentence(taken);

			doctor_list(b, "%s", s);
		} else if (r < 0 && r != -EADDRINUSE) {
			doctor_list(b, "port %u cannot be used: %s", taken, strerror(-r));
		}
	}
}

void check_ports(struct doctor *d)
{
	for (size_t i = 0; i < d->conf->n_clouds; i++) {
		const struct cloud_conf *c = d->conf->clouds[i];
		_cleanup_(strbuf_free) struct strbuf taken = STRBUF_NULL;
		bool exact;
		unsigned first = first_port(d->conf, i, &exact);
		unsigned last = first + (unsigned)cloud_conf_n_ports(c) - 1;

		if (daemon_runs_cloud(d, c->name)) {
			doctor_add(d, "ports", CHECK_OK, NULL,
				"cloud %s: the running daemon sees to them", c->name);
			continue;
		}
		taken_ports(d, c, first, &taken);
		if (!taken.len)
			doctor_add(d, "ports", CHECK_OK, NULL, "cloud %s: %u to %u are free",
				c->name, first, last);
		else if (!exact)
			doctor_add(d, "ports", CHECK_OK, NULL,
				"cloud %s: %s; it takes the next free ones from %u up", c->name,
				strbuf_str(&taken), first);
		else
			doctor_add(d, "ports", d->daemon_silent ? CHECK_WARNING : CHECK_PROBLEM,
				"end what has it, or give the cloud another port (port = N+ moves "
				"on from taken ones)",
				"cloud %s: %s", c->name, strbuf_str(&taken));
	}
}

/* What the kernel has reserved already must stay so. */
static char *reserved_line(const char *ours)
{
	_cleanup_free_ char *now = NULL;

	if (file_read(RESERVED, 1 << 20, &now, NULL) < 0)
		now = xstrdup("");
	now[strcspn(now, "\n")] = '\0';
	return xasprintf("net.ipv4.ip_local_reserved_ports = %s%s%s", now, *now ? "," : "", ours);
}

void check_port_range(struct doctor *d)
{
	_cleanup_(strbuf_free) struct strbuf ranges = STRBUF_NULL;
	_cleanup_free_ char *line = NULL;
	_cleanup_free_ char *advice = NULL;

	for (size_t i = 0; i < d->conf->n_clouds; i++) {
		bool exact;
		unsigned first = first_port(d->conf, i, &exact);
		unsigned last = first + (unsigned)cloud_conf_n_ports(d->conf->clouds[i]) - 1;
		bool inside = false;

		for (unsigned p = first; p <= last && p <= UINT16_MAX; p++)
			inside |= port_is_ephemeral((uint16_t)p);
		if (inside)
			strbuf_printf(&ranges, "%s%u-%u", ranges.len ? "," : "", first,
				MIN(last, (unsigned)UINT16_MAX));
	}
	if (!ranges.len) {
		doctor_add(d, "port range", CHECK_OK, NULL,
			"the kernel gives the clouds' ports to no outgoing connection");
		return;
	}
	line = reserved_line(ranges.s);
	advice = xasprintf("put the line `%s` into /etc/sysctl.d/60-h2ofleet.conf and run `sysctl "
			   "--system`",
		line);
	doctor_add(d, "port range", CHECK_WARNING, advice,
		"%s: the kernel may give these to outgoing connections of any program before a "
		"cloud has them",
		ranges.s);
}

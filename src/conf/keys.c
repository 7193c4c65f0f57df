#include "conf/keys.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <sys/un.h>

#include "base/log.h"
#include "base/text.h"
#include "conf/conf.h"
#include "conf/dirs.h"
#include "conf/reserved.h"

#define FLEET(f)                                                                                   \
	.section = SECTION_FLEET, .offset = offsetof(struct fleet_conf, f),                        \
	.size = sizeof(((struct fleet_conf *)NULL)->f)
#define CLOUD(f)                                                                                   \
	.section = SECTION_CLOUD, .offset = offsetof(struct cloud_conf, f),                        \
	.size = sizeof(((struct cloud_conf *)NULL)->f)

#define SECOND 1000ll
#define HOUR   (3600 * SECOND)
#define DAY    (24 * HOUR)

static const struct key_word daemon_levels[] = {
	{"error", LOG_LEVEL_ERROR},
	{"warning", LOG_LEVEL_WARNING},
	{"notice", LOG_LEVEL_NOTICE},
	{"info", LOG_LEVEL_INFO},
	{"debug", LOG_LEVEL_DEBUG},
	{NULL},
};
static const struct key_word h2o_levels[] = {
	{"TRACE"},
	{"DEBUG"},
	{"INFO"},
	{"WARN"},
	{"ERRR"},
	{"FATAL"},
	{NULL},
};
static const struct key_word restart_policies[] = {
	{"never", RESTART_NEVER},
	{"on-failure", RESTART_ON_FAILURE},
	{"always", RESTART_ALWAYS},
	{NULL},
};
static const struct key_word apply_modes[] = {
	{"live", APPLY_LIVE},
	{"restart", APPLY_RESTART},
	{NULL},
};
static const struct key_word gate_modes[] = {
	{"hold", GATE_HOLD},
	{"refuse", GATE_REFUSE},
	{"off", GATE_OFF},
	{NULL},
};
static const struct key_word start_ons[] = {
	{"command", START_ON_COMMAND},
	{"connect", START_ON_CONNECT},
	{NULL},
};
static const struct key_word stop_methods[] = {
	{"term", STOP_TERM},
	{"rest", STOP_REST},
	{NULL},
};
static const struct key_word oom_policies[] = {
	{"continue", OOM_CONTINUE},
	{"kill", OOM_KILL},
	{NULL},
};
static const struct key_word scopes_modes[] = {
	{"no", SCOPES_NO},
	{"auto", SCOPES_AUTO},
	{"yes", SCOPES_YES},
	{NULL},
};
static const struct key_word ready_whens[] = {
	{"launched", READY_WHEN_LAUNCHED},
	{"clouds", READY_WHEN_CLOUDS},
	{NULL},
};
static const struct key_word exit_whens[] = {
	{"never", EXIT_WHEN_NEVER},
	{"stopped", EXIT_WHEN_STOPPED},
	{"failed", EXIT_WHEN_FAILED},
	{NULL},
};
static const struct key_word auto_shutdown[] = {{"auto", SHUTDOWN_AUTO}, {NULL}};
static const struct key_word auto_memory[] = {{"auto", MEM_AUTO}, {NULL}};
static const struct key_word auto_threads[] = {{"auto", NTHREADS_AUTO}, {NULL}};
static const struct key_word off_or_auto[] = {{"off"}, {"auto"}, {NULL}};
static const struct key_word log_targets[] = {
	{"file", LOG_TO_FILE},
	{"journal", LOG_TO_JOURNAL},
	{"inherit", LOG_TO_INHERIT},
	{NULL},
};
static const struct key_word log_codecs[] = {
	{"zstd", LOG_COMPRESS_ZSTD},
	{"gzip", LOG_COMPRESS_GZIP},
	{"none", LOG_COMPRESS_NONE},
	{NULL},
};
static const struct key_word off_time[] = {{"off", 0}, {NULL}};
static const struct key_word boot_modes[] = {
	{"yes", BOOT_YES},
	{"native-only", BOOT_NATIVE_ONLY},
	{"no", BOOT_NO},
	{NULL},
};

static char *default_socket(const void *conf _unused_)
{
	return dirs_socket(geteuid());
}

static char *default_state(const void *conf _unused_)
{
	return dirs_state(geteuid());
}

static char *default_cache(const void *conf _unused_)
{
	return dirs_cache(geteuid());
}

static char *default_log(const void *conf _unused_)
{
	return dirs_log(geteuid());
}

static char *default_name(const void *conf)
{
	return xstrdup(((const struct cloud_conf *)conf)->name);
}

static int check_socket(void *field, struct err *e)
{
	const char *s = *(char **)field;
	size_t max = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (strlen(s) > max)
		return err_set(e, -ERANGE, "'%s' is too long for a socket: %zu bytes, at most %zu",
			s, strlen(s), max);
	return 0;
}

static int check_main_class(void *field, struct err *e)
{
	bool start = true;

	for (const char *p = *(char **)field; *p || start; p++) {
		unsigned char c = (unsigned char)*p;
		bool fits = isalpha(c) || c == '_' || c == '$' || (!start && isdigit(c));

		if (!fits && (c != '.' || start)) {
			_cleanup_free_ char *shown = types_quote(*(char **)field);

			return err_set(e, -EINVAL, "%s is not the name of a Java class", shown);
		}
		start = c == '.';
	}
	return 0;
}

/* H2O's own pattern is \d{1,5}MB. */
static int check_log_file_size(void *field, struct err *e)
{
	const char *s = *(char **)field;
	size_t digits = strspn(s, "0123456789");
	_cleanup_free_ char *shown = types_quote(s);

	if (digits < 1 || digits > 5 || !streq(s + digits, "MB"))
		return err_set(e, -EINVAL,
			"%s is not a size as H2O wants it here: 1 to 5 digits and MB, as in 3MB",
			shown);
	if (strspn(s, "0") == digits)
		return err_set(e, -ERANGE, "%s is out of range: 1MB to 99999MB", shown);
	return 0;
}

static int check_h2o_name(void *field, struct err *e)
{
	const char *s = *(char **)field;
	_cleanup_free_ char *shown = types_quote(s);

	if (strlen(s) > 64)
		return err_set(e, -ERANGE, "%s is too long: at most 64 characters", shown);
	for (const char *p = s; *p; p++)
		if (*p < '!' || *p > '~')
			return err_set(e, -EINVAL,
				"%s: printable ASCII characters are wanted, and no blanks", shown);
	return 0;
}

/* H2O puts a missing '/' in front and drops a lone one; so the same path has one spelling here. */
static int check_context_path(void *field, struct err *e)
{
	char **s = field;
	size_t n = strlen(*s);
	_cleanup_free_ char *shown = types_quote(*s);

	for (const char *p = *s; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("/_-.~", *p))
			return err_set(e, -EINVAL,
				"%s: a path of letters, digits and /_-.~ is wanted", shown);
	if (strstr(*s, "//") || (n > 0 && (*s)[n - 1] == '/'))
		return err_set(e, -EINVAL, "%s: each '/' must have something behind it", shown);
	if (**s != '/') {
		char *with = xasprintf("/%s", *s);

		free(*s);
		*s = with;
	}
	return 0;
}

static int check_gate_allow(void *field, struct err *e)
{
	const struct strv *words = field;

	for (size_t i = 0; i < words->n; i++) {
		const char *w = words->v[i];
		_cleanup_free_ char *shown = types_quote(w);

		if (streq(w, "anyone") || streq(w, "user"))
			continue;
		if ((has_prefix(w, "group:") && w[6]) || (has_prefix(w, "user:") && w[5]))
			continue;
		if (*w && strlen(w) < 11 && strspn(w, "0123456789") == strlen(w) &&
			strtoull(w, NULL, 10) < UINT32_MAX)
			continue;
		return err_set(e, -EINVAL,
			"%s: anyone, user, user:NAME, group:NAME or the number of a user is wanted",
			shown);
	}
	return 0;
}

static int check_h2o_args(void *field, struct err *e)
{
	return reserved_check_h2o_args(field, e);
}

static int check_jvm_args(void *field, struct err *e)
{
	return reserved_check_jvm_args(field, e);
}

static int check_env(void *field, struct err *e)
{
	return reserved_check_env(field, e);
}

static const struct key table[] = {
	{FLEET(socket), .name = "socket", .type = &type_path,
		.dflt = "control.sock in $RUNTIME_DIRECTORY, /run/h2ofleet or "
			"$XDG_RUNTIME_DIR/h2ofleet",
		.find_default = default_socket, .check = check_socket, .reload = RELOAD_DAEMON,
		.help = "The control socket, a path of at most 107 bytes."},
	{FLEET(state_dir), .name = "state_dir", .type = &type_path,
		.dflt = "$STATE_DIRECTORY, /var/lib/h2ofleet or $XDG_STATE_HOME/h2ofleet",
		.find_default = default_state, .reload = RELOAD_DAEMON,
		.help = "Directory of what the daemon must remember, of each node's ice_root and "
			"of the recovery directories."},
	{FLEET(cache_dir), .name = "cache_dir", .type = &type_path,
		.dflt = "$CACHE_DIRECTORY, /var/cache/h2ofleet or $XDG_CACHE_HOME/h2ofleet",
		.find_default = default_cache, .reload = RELOAD_DAEMON,
		.help = "Directory of what can be made again."},
	{FLEET(log_dir), .name = "log_dir", .type = &type_path,
		.dflt = "$LOGS_DIRECTORY, /var/log/h2ofleet or 'log' below state_dir",
		.find_default = default_log, .reload = RELOAD_DAEMON,
		.help = "Directory of the nodes' output and of H2O's log files (log_dir of "
			"h2o.init)."},
	{FLEET(events_max_size), .name = "events_max_size", .type = &type_size, .dflt = "4m",
		.min = 64ll << 10, .max = 64ll << 20, .reload = RELOAD_DAEMON,
		.help = "How much of the numbered events is kept below state_dir; the oldest go."},
	{FLEET(baseport), .name = "baseport", .type = &type_int, .dflt = "54321", .min = 1,
		.max = 65533, .reload = RELOAD_CLOUD,
		.help = "Where clouds without a 'port' begin to look for free ports (baseport of "
			"H2OLocalServer.start). A cloud needs one, and two for each node."},
	{FLEET(created_max), .name = "created_max", .type = &type_int, .dflt = "32", .min = 0,
		.max = 1000, .reload = RELOAD_LIVE,
		.help = "How many clouds there may be that were made at run time ('h2ofleet "
			"create') before only root and the daemon's user may make more; 0: only "
			"these may."},
	{FLEET(created_max_nodes), .name = "created_max_nodes", .type = &type_int, .dflt = "64",
		.min = 0, .max = 1000000, .reload = RELOAD_LIVE,
		.help = "How many nodes these clouds may have together, likewise. Their heaps "
			"together may never be more than the machine's memory."},
	{FLEET(scopes), .name = "scopes", .type = &type_word, .dflt = "auto", .words = scopes_modes,
		.reload = RELOAD_DAEMON,
		.help = "Whether each cloud runs in a control group of its own (a systemd scope, "
			"or a directory where that is delegated to us): auto, where it is plain "
			"how; yes, also for a daemon that is no service; or no."},
	{FLEET(apply), .name = "apply", .type = &type_word, .dflt = "live", .words = apply_modes,
		.reload = RELOAD_LIVE,
		.help = "What a reload does with clouds whose changes need a restart: live leaves "
			"them as they are until somebody restarts them, restart does that at "
			"once."},
	{FLEET(log_level), .name = "log_level", .type = &type_word, .dflt = "info",
		.words = daemon_levels, .reload = RELOAD_LIVE,
		.help = "How much the daemon itself logs: error, warning, notice, info or debug."},
	{FLEET(fast_boot_delay_ms), .name = "fast_boot_delay", .type = &type_time, .dflt = "5s",
		.min = 0, .max = DAY, .reload = RELOAD_LIVE,
		.help = "For how long all clouds must have been ready or at rest before what "
			"fast_boot needs is made in the background ('h2ofleet prepare' does it at "
			"once). It takes the time that nobody else wants, and gives way to any "
			"cloud that starts."},
	{FLEET(ready_when), .name = "ready_when", .type = &type_word, .dflt = "launched",
		.words = ready_whens, .reload = RELOAD_DAEMON,
		.help = "When systemd is told that the start is done: launched, once the nodes of "
			"all autostart clouds run; clouds, once these clouds are ready (or their "
			"first start has failed)."},
	{FLEET(exit_when), .name = "exit_when", .type = &type_word, .dflt = "never",
		.words = exit_whens, .reload = RELOAD_LIVE,
		.help = "When the daemon ends by itself, for containers: never; stopped, once no "
			"cloud that was wanted runs any more (exit code 0 if all were stopped in "
			"order, 6 if one has failed); failed, as soon as one has failed (the "
			"others are stopped in order, exit code 6)."},
	{FLEET(shutdown_timeout_ms), .name = "shutdown_timeout", .type = &type_time, .dflt = "auto",
		.min = SECOND, .max = HOUR, .words = auto_shutdown, .reload = RELOAD_LIVE,
		.help = "Time that all clouds together have to end when the daemon is told to end; "
			"then they are killed. auto: 8s in a container, where docker kills it "
			"after 10, else no limit but each cloud's stop_timeout."},

	{CLOUD(nodes), .name = "nodes", .type = &type_int, .dflt = "1", .min = 1, .max = 1024,
		.reload = RELOAD_CLOUD, .help = "Number of nodes, each a JVM."},
	{CLOUD(port), .name = "port", .type = &type_port, .min = 1, .max = 65533,
		.reload = RELOAD_CLOUD,
		.help = "Port of the endpoint, where clients connect; the nodes have those above "
			"it, each an "
			"API port and the next (with gate_mode = off the first node's own is the "
			"endpoint). 'N+' looks for free ports from N up, 'N' insists on these "
			"(port of "
			"H2OLocalServer.start). Without it: from [fleet] baseport up."},
	{CLOUD(max_mem_size), .name = "max_mem_size", .type = &type_memory, .dflt = "auto",
		.min = 32ll << 20, .max = 64ll << 40, .words = auto_memory, .reload = RELOAD_CLOUD,
		.help = "Heap of each node (-Xmx; max_mem_size of h2o.init): a size such as 512m "
			"or 4g; or a percentage of the machine's or container's memory, divided by "
			"the nodes; auto is 25%."},
	{CLOUD(min_mem_size), .name = "min_mem_size", .type = &type_memory, .min = 32ll << 20,
		.max = 64ll << 40, .reload = RELOAD_CLOUD,
		.help = "Heap that each node begins with (-Xms; min_mem_size of h2o.init): a size, "
			"or a percentage as of max_mem_size. Without it the JVM decides."},
	{CLOUD(nthreads), .name = "nthreads", .type = &type_int, .dflt = "auto", .min = -1,
		.max = 32767, .words = auto_threads, .reload = RELOAD_CLOUD,
		.help = "Threads of each node's pool (nthreads of h2o.init): auto divides the "
			"cores over the nodes, -1 gives all cores to each."},
	{CLOUD(memory_max), .name = "memory_max", .type = &type_memory, .min = 64ll << 20,
		.max = 64ll << 40, .reload = RELOAD_CLOUD,
		.help = "Memory that all nodes of the cloud together may use (systemd's "
			"MemoryMax=): a size, or a percentage of the machine's or container's "
			"memory. More than their heaps: a JVM needs about a quarter on top. Needs "
			"a control group of its own with the memory controller."},
	{CLOUD(cpu_quota), .name = "cpu_quota", .type = &type_quota, .min = 1, .max = 1000000,
		.reload = RELOAD_CLOUD,
		.help = "CPU time that all nodes of the cloud together may use (systemd's "
			"CPUQuota=), in percent of one CPU: 150% is one and a half. Needs a "
			"control "
			"group of its own with the cpu controller."},
	{CLOUD(oom_policy), .name = "oom_policy", .type = &type_word, .dflt = "continue",
		.words = oom_policies, .reload = RELOAD_CLOUD,
		.help = "What the kernel kills when the cloud runs out of memory (systemd's "
			"OOMPolicy=): continue, one process, after which the daemon ends the "
			"others in order; or kill, all nodes at once."},
	{CLOUD(auto_recovery_dir), .name = "auto_recovery_dir", .type = &type_path, .dflt = "auto",
		.words = off_or_auto, .reload = RELOAD_CLOUD, .privilege = PRIVILEGE_PATH,
		.help = "Where H2O keeps what it needs to go on with a grid search or AutoML after "
			"a restart: a directory, off, or auto: below state_dir where its file "
			"system has room for the cloud's whole memory."},
	{CLOUD(autostart), .name = "autostart", .type = &type_bool, .dflt = "yes",
		.reload = RELOAD_LIVE, .help = "Whether the cloud is started with the daemon."},
	{CLOUD(start_on), .name = "start_on", .type = &type_word, .dflt = "command",
		.words = start_ons, .reload = RELOAD_LIVE,
		.help = "What starts the cloud while it is stopped: command, only 'h2ofleet "
			"start'; or connect, also the first connection to its endpoint, which "
			"waits meanwhile."},
	{CLOUD(max_idle_duration_ms), .name = "max_idle_duration", .type = &type_time,
		.dflt = "off", .words = off_time, .min = SECOND, .max = 365 * DAY,
		.reload = RELOAD_LIVE,
		.help = "Time without any use (no byte through the gate, no job) after which the "
			"cloud is stopped; or off."},
	{CLOUD(gate_mode), .name = "gate_mode", .type = &type_word, .dflt = "hold",
		.words = gate_modes, .reload = RELOAD_CLOUD,
		.help = "What becomes of connections to the endpoint while the cloud is not whole: "
			"hold lets them wait, refuse does not listen; off is no gate at all: "
			"clients connect to the first node itself, and may come too early."},
	{CLOUD(gate_hold_ms), .name = "gate_hold", .type = &type_time, .dflt = "15s", .min = 100,
		.max = HOUR, .reload = RELOAD_LIVE,
		.help = "Time that a connection may wait at the gate for the cloud to become "
			"ready; then it is closed."},
	{CLOUD(gate_allow), .name = "gate_allow", .type = &type_list, .check = check_gate_allow,
		.reload = RELOAD_LIVE, .privilege = PRIVILEGE_ALL,
		.help = "Whose connections the gate lets through: anyone; user, the daemon's own "
			"and, for a daemon of the system, the control socket's group; user:NAME; "
			"group:NAME; numbers of users; several with blanks between them. root may "
			"always. Without it: user, or anyone with bind_to_localhost = no."},
	{CLOUD(restart), .name = "restart", .type = &type_word, .dflt = "on-failure",
		.words = restart_policies, .reload = RELOAD_LIVE,
		.help = "When a cloud that ended is started again: always, never, or on-failure, "
			"which is not after a client shut it down."},
	{CLOUD(jar_path), .name = "jar_path", .type = &type_path, .reload = RELOAD_CLOUD,
		.privilege = PRIVILEGE_ALL,
		.help = "h2o.jar (jar_path of H2OLocalServer.start). Without it, it is searched "
			"where the Python client searches."},
	{CLOUD(java), .name = "java", .type = &type_path, .reload = RELOAD_CLOUD,
		.privilege = PRIVILEGE_ALL,
		.help = "The java program. Without it, it is searched where the Python client "
			"searches."},
	{CLOUD(extra_classpath), .name = "extra_classpath", .type = &type_pathlist,
		.reload = RELOAD_CLOUD, .privilege = PRIVILEGE_ALL,
		.help = "Jars and directories behind h2o.jar on the classpath, with ':' between "
			"them (extra_classpath of h2o.init)."},
	{CLOUD(main_class), .name = "main_class", .type = &type_text, .check = check_main_class,
		.reload = RELOAD_CLOUD, .privilege = PRIVILEGE_ALL,
		.help = "Java class to run instead of H2O's own."},
	{CLOUD(jvm_custom_args), .name = "jvm_custom_args", .type = &type_list,
		.check = check_jvm_args, .reload = RELOAD_CLOUD, .privilege = PRIVILEGE_ALL,
		.help = "More options for the JVM (jvm_custom_args of h2o.init); blanks separate, "
			"quotes and backslashes as in a shell."},
	{CLOUD(h2o_args), .name = "h2o_args", .type = &type_list, .check = check_h2o_args,
		.reload = RELOAD_CLOUD, .privilege = PRIVILEGE_ALL,
		.help = "More options for H2O, such as -allow_clients."},
	{CLOUD(env), .name = "env", .type = &type_list, .check = check_env, .reload = RELOAD_CLOUD,
		.privilege = PRIVILEGE_ALL,
		.help = "Environment variables of the nodes, NAME=value, in addition to the "
			"daemon's."},
	{CLOUD(enable_assertions), .name = "enable_assertions", .type = &type_bool, .dflt = "no",
		.reload = RELOAD_CLOUD,
		.help = "Run with Java's assertions (-ea; enable_assertions of h2o.init, where it "
			"is the default)."},
	{CLOUD(ice_root), .name = "ice_root", .type = &type_path, .reload = RELOAD_CLOUD,
		.privilege = PRIVILEGE_ALL,
		.help = "Directory below which each node has one for its temporary files (ice_root "
			"of h2o.init). Without it: below state_dir."},
	{CLOUD(log_level), .name = "log_level", .type = &type_level, .dflt = "INFO",
		.words = h2o_levels, .reload = RELOAD_CLOUD,
		.help = "How much H2O logs: TRACE, DEBUG, INFO, WARN, ERRR or FATAL (log_level of "
			"h2o.init)."},
	{CLOUD(max_log_file_size), .name = "max_log_file_size", .type = &type_text, .dflt = "3MB",
		.check = check_log_file_size, .reload = RELOAD_CLOUD, .privilege = PRIVILEGE_CHANGE,
		.help = "Size at which H2O begins a new log file, in H2O's form: 1MB to 99999MB "
			"(max_log_file_size of h2o.init)."},
	{CLOUD(log_to), .name = "log_to", .type = &type_word, .dflt = "file", .words = log_targets,
		.reload = RELOAD_CLOUD, .privilege = PRIVILEGE_CHANGE,
		.help = "Where the nodes' output goes: file, below log_dir; journal, to journald "
			"under the identifier h2o-CLOUD-N; inherit, to the daemon's own standard "
			"output, as containers want it."},
	{CLOUD(log_max_size), .name = "log_max_size", .type = &type_size, .dflt = "64m",
		.min = 256ll << 10, .max = 16ll << 30, .reload = RELOAD_LIVE,
		.help = "Size at which a node's log is rotated: what is old is moved to a "
			"compressed part beside it, while the node writes on. Earlier where "
			"log_max_total asks for it."},
	{CLOUD(log_max_age_ms), .name = "log_max_age", .type = &type_time, .dflt = "7d",
		.words = off_time, .min = SECOND, .max = 3650 * DAY, .reload = RELOAD_LIVE,
		.help = "Age at which what is in a node's log is moved to a part even if the log "
			"is small; or off."},
	{CLOUD(log_max_total), .name = "log_max_total", .type = &type_size, .dflt = "1g",
		.min = 1ll << 20, .max = 64ll << 40, .reload = RELOAD_LIVE,
		.privilege = PRIVILEGE_CHANGE,
		.help = "Size of all logs of the cloud and their parts, and of crash reports, "
			"together: the oldest parts are removed. H2O's own log files do not count: "
			"see max_log_file_size."},
	{CLOUD(log_compress), .name = "log_compress", .type = &type_word, .dflt = "zstd",
		.words = log_codecs, .reload = RELOAD_LIVE,
		.help = "How parts are compressed: zstd, gzip or none."},
	{CLOUD(bind_to_localhost), .name = "bind_to_localhost", .type = &type_bool, .dflt = "yes",
		.reload = RELOAD_CLOUD, .privilege = PRIVILEGE_CHANGE,
		.help = "Whether only this machine can reach the REST API (bind_to_localhost of "
			"h2o.init). H2O asks nobody for a password."},
	{CLOUD(h2o_name), .name = "name", .type = &type_text, .dflt = "the section's",
		.find_default = default_name, .check = check_h2o_name, .reload = RELOAD_CLOUD,
		.help = "What H2O's name of the cloud begins with (name of h2o.init); the "
			"generation and a random part follow."},
	{CLOUD(context_path), .name = "context_path", .type = &type_text,
		.check = check_context_path, .reload = RELOAD_CLOUD,
		.help = "Path below which the REST API is served, such as /h2o."},
	{CLOUD(allow_unsupported_java), .name = "allow_unsupported_java", .type = &type_bool,
		.dflt = "no", .reload = RELOAD_CLOUD,
		.help = "Whether H2O may run with a version of Java that it does not support."},
	{CLOUD(restart_delay_ms), .name = "restart_delay", .type = &type_time, .dflt = "0s",
		.min = 0, .max = DAY, .reload = RELOAD_LIVE,
		.help = "Time before the first restart after a failure; doubled with each further "
			"one."},
	{CLOUD(restart_delay_max_ms), .name = "restart_delay_max", .type = &type_time,
		.dflt = "60s", .min = 0, .max = DAY, .reload = RELOAD_LIVE,
		.help = "Longest time before a restart."},
	{CLOUD(start_limit), .name = "start_limit", .type = &type_limit, .dflt = "5 in 10m",
		.min = SECOND, .max = 30 * DAY, .reload = RELOAD_LIVE,
		.help = "Failures within a time, 1 to 60 of them, after which the cloud stays "
			"failed until someone starts it."},
	{CLOUD(ready_timeout_ms), .name = "ready_timeout", .type = &type_time, .dflt = "120s",
		.min = SECOND, .max = DAY, .reload = RELOAD_LIVE,
		.help = "Time within which a started cloud must be ready."},
	{CLOUD(health_interval_ms), .name = "health_interval", .type = &type_time, .dflt = "1s",
		.min = 100, .max = HOUR, .reload = RELOAD_LIVE,
		.help = "Time between two questions to a node whether it is well."},
	{CLOUD(late_after_ms), .name = "late_after", .type = &type_time, .dflt = "3s", .min = 100,
		.max = HOUR, .reload = RELOAD_LIVE,
		.help = "Time without an answer after which a node is late and its cloud "
			"degraded."},
	{CLOUD(hang_timeout_ms), .name = "hang_timeout", .type = &type_time, .dflt = "60s",
		.min = SECOND, .max = DAY, .reload = RELOAD_LIVE,
		.help = "Time without an answer after which a node hangs and its cloud is "
			"restarted."},
	{CLOUD(stop_timeout_ms), .name = "stop_timeout", .type = &type_time, .dflt = "10s",
		.min = 100, .max = HOUR, .reload = RELOAD_LIVE,
		.help = "Time that nodes have to end before they are killed."},
	{CLOUD(stop_method), .name = "stop_method", .type = &type_word, .dflt = "term",
		.words = stop_methods, .reload = RELOAD_LIVE,
		.help = "How a cloud is asked to stop: term sends SIGTERM, rest first asks H2O "
			"(POST /3/Shutdown)."},
	{CLOUD(fast_boot), .name = "fast_boot", .type = &type_word, .dflt = "yes",
		.words = boot_modes, .reload = RELOAD_LIVE,
		.help = "Whether nodes start from the boot cache below cache_dir, in half the "
			"time: yes, native-only (the native libraries, but no archive of classes) "
			"or no. Where jvm_custom_args has such options itself (java.library.path, "
			"SharedArchiveFile, AOTCache, Xshare), these are used instead. What is "
			"not there yet is made in the background: see fast_boot_delay. Unless it "
			"is no, nodes also leave out H2O's benchmark of processor and memory."},
};

const struct key *keys_all(size_t *n)
{
	*n = ARRAY_SIZE(table);
	return table;
}

size_t keys_index(const struct key *k)
{
	return (size_t)(k - table);
}

const char *keys_section_name(enum key_section section)
{
	return section == SECTION_FLEET ? "fleet" : "cloud";
}

static const struct key *find_n(enum key_section section, const char *name, size_t n)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section && strlen(table[i].name) == n &&
			memcmp(table[i].name, name, n) == 0)
			return &table[i];
	return NULL;
}

const struct key *keys_find(enum key_section section, const char *name)
{
	return find_n(section, name, strlen(name));
}

const char *keys_nearest(enum key_section section, const char *name)
{
	const char *names[ARRAY_SIZE(table)];
	const char *near = NULL;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section)
			names[n++] = table[i].name;
	for (size_t i = 0; !near && strlen(name) >= 3 && i < n; i++)
		if (has_prefix(names[i], name)) /* "max_mem" */
			near = names[i];
	if (!near)
		near = text_nearest(name, names, n);
	for (size_t i = 0; !near && strlen(name) >= 3 && i < n; i++)
		if (strstr(names[i], name))
			near = names[i];
	return near;
}

bool keys_begins_line(enum key_section section, const char *s)
{
	size_t n = strcspn(s, " \t=:");
	char sign = s[n + strspn(s + n, " \t")];

	return (sign == '=' || sign == ':') && find_n(section, s, n);
}

static void *field_of(const struct key *k, const void *conf)
{
	return (char *)conf + k->offset;
}

void key_clear(const struct key *k, void *conf)
{
	void *field = field_of(k, conf);

	if (k->type->storage == STORE_STR)
		free(*(char **)field);
	else if (k->type->storage == STORE_STRV)
		strv_free(field);
	memset(field, 0, k->size);
}

/* A value on its way into a field. */
union value {
	int64_t number;
	char *text;
	struct strv list;
	struct mem_spec memory;
	struct limit_spec limit;
};

int key_set(const struct key *k, void *conf, const char *value, struct err *e)
{
	union value v;
	struct key at_v = *k;
	int r;

	memset(&v, 0, sizeof(v));
	at_v.offset = 0;
	if (!*value && (k->dflt || k->find_default))
		return err_set(e, -EINVAL, "%s: a value is missing", k->name);
	r = *value ? k->type->parse(k, &v, value, e) : 0;
	if (r == 0 && *value && k->check)
		r = k->check(&v, e);
	if (r < 0) {
		key_clear(&at_v, &v);
		err_wrap(e, "%s", k->name);
		return r;
	}
	key_clear(k, conf);
	memcpy(field_of(k, conf), &v, k->size);
	return 0;
}

void key_set_default(const struct key *k, void *conf)
{
	_cleanup_free_ char *found = k->find_default ? k->find_default(conf) : NULL;
	_cleanup_(err_clear) struct err e = ERR_NULL;

	if (k->find_default) {
		*(char **)field_of(k, conf) = TAKE_PTR(found);
	} else if (k->dflt && key_set(k, conf, k->dflt, &e) < 0) {
		fprintf(stderr, "h2ofleet: default of %s\n",
			err_msg(&e)); /* a fault of the table */
		abort();
	}
}

char *key_get(const struct key *k, const void *conf)
{
	return k->type->print(k, field_of(k, conf));
}

/* The text is a value's one spelling, so it compares. */
bool key_equal(const struct key *k, const void *a, const void *b)
{
	_cleanup_free_ char *text_a = key_get(k, a);
	_cleanup_free_ char *text_b = key_get(k, b);

	return streq_null(text_a, text_b);
}

void key_copy(const struct key *k, void *dst, const void *src)
{
	void *to = field_of(k, dst);
	const void *from = field_of(k, src);

	if (k->type->storage == STORE_STR)
		*(char **)to = xstrdup_null(*(char *const *)from);
	else if (k->type->storage == STORE_STRV)
		strv_copy(to, from);
	else if (k->type->storage == STORE_PLAIN)
		memcpy(to, from, k->size);
}

/* Also in another spelling. What is no value at all is not worth a privilege. */
static bool is_default(const struct key *k, const char *value)
{
	_cleanup_(cloud_conf_freep) struct cloud_conf *c = cloud_conf_new("default");
	_cleanup_free_ char *before = key_get(k, c), *after = NULL;

	if (key_set(k, c, value, NULL) < 0)
		return true;
	after = key_get(k, c);
	return streq_null(before, after);
}

bool key_is_privileged(const struct key *k, const char *value)
{
	if (k->privilege == PRIVILEGE_CHANGE)
		return !is_default(k, value);
	if (k->privilege != PRIVILEGE_PATH)
		return k->privilege == PRIVILEGE_ALL;
	for (const struct key_word *w = k->words; w->name; w++)
		if (strcasecmp(w->name, value) == 0)
			return false;
	return true;
}

void keys_set_defaults(enum key_section section, void *conf)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section)
			key_set_default(&table[i], conf);
}

void keys_copy(enum key_section section, void *dst, const void *src)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section)
			key_copy(&table[i], dst, src);
}

bool keys_equal(enum key_section section, const void *a, const void *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section && !key_equal(&table[i], a, b))
			return false;
	return true;
}

void keys_clear(enum key_section section, void *conf)
{
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].section == section)
			key_clear(&table[i], conf);
}

/* H2O's part of the command line (h2o-core water/H2O.java, OptArgs) and the flatfile. */
#include "fake.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>

#include "base/text.h"

enum kind { K_NONE, K_STRING, K_INT, K_FLAG };

struct option {
	const char *name;
	enum kind kind;
	int nargs;
	size_t offset;
};

#define STR(name, field)                                                                           \
	{                                                                                          \
		name, K_STRING, 1, offsetof(struct h2o_options, field)                             \
	}
#define INT(name, field)                                                                           \
	{                                                                                          \
		name, K_INT, 1, offsetof(struct h2o_options, field)                                \
	}
#define FLAG(name, field)                                                                          \
	{                                                                                          \
		name, K_FLAG, 0, offsetof(struct h2o_options, field)                               \
	}
#define SKIP(name, nargs)                                                                          \
	{                                                                                          \
		name, K_NONE, nargs, 0                                                             \
	}

static const struct option options[] = {
	STR("name", name),
	STR("flatfile", flatfile),
	STR("ip", ip),
	STR("web_ip", web_ip),
	STR("ice_root", ice_root),
	STR("log_dir", log_dir),
	STR("log_level", log_level),
	STR("context_path", context_path),
	STR("notify_local", notify_local),
	STR("auto_recovery_dir", auto_recovery_dir),
	INT("port", port),
	INT("baseport", baseport),
	INT("port_offset", port_offset),
	INT("nthreads", nthreads),
	INT("rest_api_ping_timeout", ping_timeout),
	FLAG("disable_flow", disable_flow),
	FLAG("disable_web", disable_web),
	FLAG("md5skip", md5skip),
	FLAG("allow_unsupported_java", allow_unsupported_java),
	SKIP("network", 1),
	SKIP("add_http_header", 2),
	SKIP("file_deny_glob", 1),
	SKIP("max_log_file_size", 1),
	SKIP("flow_dir", 1),
	SKIP("off_heap_memory_ratio", 1),
	SKIP("features", 1),
	SKIP("client_disconnect_timeout", 1),
	SKIP("login_conf", 1),
	SKIP("spnego_properties", 1),
	SKIP("session_timeout", 1),
	SKIP("user_name", 1),
	SKIP("jks", 1),
	SKIP("jks_pass", 1),
	SKIP("jks_alias", 1),
	SKIP("internal_security_conf", 1),
	SKIP("disable_net", 0),
	SKIP("cleaner", 0),
	SKIP("quiet", 0),
	SKIP("embedded", 0),
	SKIP("client", 0),
	SKIP("allow_clients", 0),
	SKIP("hash_login", 0),
	SKIP("ldap_login", 0),
	SKIP("kerberos_login", 0),
	SKIP("spnego_login", 0),
	SKIP("pam_login", 0),
	SKIP("form_auth", 0),
	SKIP("hostname_as_jks_alias", 0),
	SKIP("internal_security_conf_rel_paths", 0),
	SKIP("ga_opt_out", 0),
	SKIP("no_latest_check", 0),
	SKIP("useUDP", 0),
	SKIP("hdfs_config", 1),
	SKIP("hdfs_skip", 0),
	SKIP("H", 2),
	SKIP("aws_credentials", 1),
	SKIP("principal", 1),
	SKIP("keytab", 1),
	SKIP("decrypt_tool", 1),
	SKIP("use_external_xgboost", 0),
	SKIP("allow_insecure_xgboost", 0),
};

static void fail(struct node *n, const char *fmt, ...) _printf_(2, 3) _noreturn_;

static void fail(struct node *n, const char *fmt, ...)
{
	va_list ap;

	printf("\nERROR: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n%s", h2o_help);
	fflush(stdout);
	node_exit(n, 1);
}

static const struct option *find(const char *arg)
{
	const char *name = arg;

	if (*name == '-')
		name += name[1] == '-' ? 2 : 1;
	if (name == arg)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (streq(options[i].name, name))
			return &options[i];
	return NULL;
}

static void store(struct node *n, const struct option *o, const char *value)
{
	void *field = (char *)&n->h2o + o->offset;

	switch (o->kind) {
	case K_STRING:
		replace_str(field, value);
		break;
	case K_INT:
		if (text_parse_int(value, field) < 0)
			fail(n, "Argument -%s must be an integer (was given '%s')", o->name, value);
		break;
	case K_FLAG:
		*(bool *)field = true;
		break;
	case K_NONE:
		break;
	}
}

/* -Dai.h2o.<opt>=v, names of one level, come after the arguments and so win. */
static void add_property_options(const struct node *n, struct strv *args)
{
	const char *const prefix = "ai.h2o.";

	for (size_t i = 0; i < n->jvm.props.n; i++) {
		const char *p = n->jvm.props.v[i];
		size_t len;

		if (!has_prefix(p, prefix))
			continue;
		p += strlen(prefix);
		len = strcspn(p, "=");
		if (memchr(p, '.', len))
			continue;
		strv_printf(args, "-%.*s", (int)len, p);
		if (p[len] && p[len + 1])
			strv_add(args, p + len + 1);
	}
}

static void set_defaults(struct h2o_options *o)
{
	const struct passwd *pw = getpwuid(geteuid());
	const char *user = pw ? pw->pw_name : "nobody";

	o->name = xstrdup(user);
	o->ice_root = xasprintf("/tmp/h2o-%s", user);
	o->log_level = xstrdup("INFO");
	o->context_path = xstrdup("");
	o->baseport = 54321;
	o->port_offset = 1;
}

static void validate(struct node *n)
{
	struct h2o_options *o = &n->h2o;

	if (o->port < 0 || o->port > 65535)
		fail(n, "port has to be in range 0 to 65535");
	if (o->port_offset < 0)
		fail(n, "port_offset has to be non-negative");
	if (o->nthreads > 32767)
		fail(n, "nthreads invalid (must be <= 32767)");
	if (!o->log_dir)
		o->log_dir = xasprintf("%s/h2ologs", o->ice_root);
	if (o->context_path[0] && o->context_path[0] != '/') {
		char *p = xasprintf("/%s", o->context_path);

		free(o->context_path);
		o->context_path = p;
	}
}

void options_parse(struct node *n, int argc, char **argv)
{
	struct h2o_options *o = &n->h2o;

	set_defaults(o);
	for (int i = 0; i < argc; i++)
		strv_add(&o->args, argv[i]);
	add_property_options(n, &o->args);
	for (size_t i = 0; i < o->args.n; i++) {
		const char *a = o->args.v[i];
		const struct option *opt = find(a);

		if (streq(a, "-version") || streq(a, "--version")) {
			printf("H2O %s\n", FAKE_H2O_VERSION);
			fflush(stdout);
			node_exit(n, 0);
		}
		if (streq(a, "-h") || streq(a, "-help")) {
			printf("%s", h2o_help);
			fflush(stdout);
			node_exit(n, 1); /* H2O dies with a NullPointerException here */
		}
		if (!opt)
			fail(n, "Unknown argument (%s)", a);
		if (i + (size_t)opt->nargs >= o->args.n)
			fail(n, "%s not specified", opt->name);
		store(n, opt, opt->nargs ? o->args.v[i + 1] : NULL);
		i += (size_t)opt->nargs;
	}
	validate(n);
}

static void add_entry(struct node *n, const char *entry)
{
	const char *slash = strrchr(entry, '/');
	const char *addr = slash ? slash + 1 : entry;
	const char *colon = strchr(addr, ':');
	char ip[32] = "";
	struct in_addr in;
	struct peer *p;

	if (colon && (size_t)(colon - addr) < sizeof(ip))
		memcpy(ip, addr, (size_t)(colon - addr));
	if (!colon || inet_pton(AF_INET, streq(ip, "localhost") ? "127.0.0.1" : ip, &in) != 1 ||
		atoi(colon + 1) <= 0 || atoi(colon + 1) > 65535) {
		console_log(n, LVL_ERROR, "main", "Invalid format, must be name/ip:port, not '%s'",
			entry);
		node_exit(n, 255);
	}
	p = gossip_peer(n, in, (uint16_t)atoi(colon + 1));
	if (p)
		p->in_flatfile = true;
}

/* Of a named pipe only once somebody has written to it and closed it. */
static bool read_all(int fd, struct strbuf *text)
{
	struct stat st;
	char chunk[4096];
	ssize_t len;

	while ((len = read(fd, chunk, sizeof(chunk))) > 0)
		strbuf_add(text, chunk, (size_t)len);
	return len == 0 && (text->len || (fstat(fd, &st) == 0 && !S_ISFIFO(st.st_mode)));
}

bool options_read_flatfile(struct node *n)
{
	_cleanup_free_ char *text = NULL;
	char *save = NULL;

	if (!n->h2o.flatfile)
		return true;
	if (n->flatfile_fd < 0)
		n->flatfile_fd = open(n->h2o.flatfile, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (n->flatfile_fd < 0) {
		console_log(n, LVL_WARN, "main", "-flatfile specified but not found: %s",
			n->h2o.flatfile);
		return true;
	}
	if (!read_all(n->flatfile_fd, &n->flatfile))
		return false;
	close(n->flatfile_fd);
	text = strbuf_take(&n->flatfile);
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		line += strspn(line, " \t\r");
		line[strcspn(line, " \t\r#")] = 0;
		if (*line)
			add_entry(n, line);
	}
	return true;
}

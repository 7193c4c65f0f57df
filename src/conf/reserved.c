#include "conf/reserved.h"

#include <ctype.h>
#include <errno.h>

#include "base/strbuf.h"
#include "conf/types.h"

struct reserved {
	const char *name;
	const char *instead; /* goes on after "'-port' " */
};

#define OWN(key)  "is set by h2ofleet: use the key '" key "'"
#define OWN_IT    "is set by h2ofleet"
#define NO_LOGIN  "is not supported yet: h2ofleet cannot log in to a cloud"
#define NO_TLS    "is not supported yet: h2ofleet cannot speak TLS to a cloud"
#define NO_REST   "would leave h2ofleet without the REST API that it watches"
#define NO_CLOUD  "would end the process instead of starting a node"
#define OWN_HEAP  "is set by h2ofleet: use the keys 'max_mem_size' and 'min_mem_size'"
#define OWN_CLASS "is set by h2ofleet: use the keys 'jar_path', 'extra_classpath' and 'main_class'"

/* H2O's options, without dashes. */
static const struct reserved h2o_options[] = {
	{"port", OWN("port")},
	{"baseport", OWN("port")},
	{"port_offset", OWN_IT},
	{"name", OWN("name")},
	{"flatfile", OWN_IT},
	{"ip", OWN("bind_to_localhost")},
	{"network", OWN("bind_to_localhost")},
	{"web_ip", OWN("bind_to_localhost")},
	{"client", "would start a client instead of a member of the cloud"},
	{"disable_web", NO_REST},
	{"disable_net", NO_REST},
	{"ice_root", OWN("ice_root")},
	{"log_dir", OWN("log_dir")},
	{"log_level", OWN("log_level")},
	{"max_log_file_size", OWN("max_log_file_size")},
	{"nthreads", OWN("nthreads")},
	{"context_path", OWN("context_path")},
	{"auto_recovery_dir", OWN("auto_recovery_dir")},
	{"allow_unsupported_java", OWN("allow_unsupported_java")},
	{"notify_local", "does not tell when a cloud is ready: use 'h2ofleet wait'"},
	{"rest_api_ping_timeout", "would end nodes that no client talks to"},
	{"version", NO_CLOUD},
	{"help", NO_CLOUD},
	{"h", NO_CLOUD},
	{"embedded", "is for H2O within another program"},
	{"hash_login", NO_LOGIN},
	{"ldap_login", NO_LOGIN},
	{"kerberos_login", NO_LOGIN},
	{"spnego_login", NO_LOGIN},
	{"spnego_properties", NO_LOGIN},
	{"pam_login", NO_LOGIN},
	{"login_conf", NO_LOGIN},
	{"form_auth", NO_LOGIN},
	{"session_timeout", NO_LOGIN},
	{"user_name", NO_LOGIN},
	{"jks", NO_TLS},
	{"jks_pass", NO_TLS},
	{"jks_alias", NO_TLS},
	{"hostname_as_jks_alias", NO_TLS},
	{"internal_security_conf", NO_TLS},
	{"internal_security_conf_rel_paths", NO_TLS},
};

/* The JVM's: a name that ends in '*' stands for all that begin so. */
static const struct reserved jvm_options[] = {
	{"-Xmx*", OWN_HEAP},
	{"-Xms*", OWN_HEAP},
	{"-mx*", OWN_HEAP},
	{"-ms*", OWN_HEAP},
	{"-XX:MaxHeapSize=*", OWN_HEAP},
	{"-XX:InitialHeapSize=*", OWN_HEAP},
	{"-jar", OWN_CLASS},
	{"-cp", OWN_CLASS},
	{"-classpath", OWN_CLASS},
	{"--class-path*", OWN_CLASS},
	{"-Djava.class.path*", OWN_CLASS},
	{"-m", OWN_CLASS},
	{"--module", OWN_CLASS},
	{"--module=*", OWN_CLASS},
	{"-Djava.io.tmpdir*", "is set by h2ofleet: each node has one below 'ice_root'"},
	{"-XX:ErrorFile*", "is set by h2ofleet: crash files go to 'log_dir'"},
	{"-ea", OWN("enable_assertions")},
	{"-enableassertions", OWN("enable_assertions")},
	{"-Dsys.ai.h2o.telemetry*", "is set by h2ofleet: telemetry is off"},
	{"@*", "is a file of arguments, which h2ofleet does not see into: list them here"},
	{"-XX:Flags=*", "is a file of options, which h2ofleet does not see into: list them here"},
	{"-XX:VMOptionsFile=*",
		"is a file of options, which h2ofleet does not see into: list them here"},
	{"-Xrs", "would keep h2ofleet from getting thread dumps"},
	{"-XX:+ReduceSignalUsage", "would keep h2ofleet from getting thread dumps"},
	{"-version*", NO_CLOUD},
	{"--version", NO_CLOUD},
	{"-fullversion", NO_CLOUD},
	{"--full-version", NO_CLOUD},
	{"-help", NO_CLOUD},
	{"--help*", NO_CLOUD},
	{"-h", NO_CLOUD},
	{"-?", NO_CLOUD},
	{"-X", NO_CLOUD},
	{"--dry-run", NO_CLOUD},
	{"--list-modules", NO_CLOUD},
};

static const struct reserved variables[] = {
	{"JAVA_TOOL_OPTIONS", "hides options from h2ofleet: use the key 'jvm_custom_args'"},
	{"JDK_JAVA_OPTIONS", "hides options from h2ofleet: use the key 'jvm_custom_args'"},
	{"_JAVA_OPTIONS", "hides options from h2ofleet: use the key 'jvm_custom_args'"},
	{"H2OFLEET_TOKEN", "is set by h2ofleet"},
	{"H2O_KUBERNETES_*", "would make H2O form its cloud by Kubernetes"},
	{"H2O_ASSISTED_CLUSTERING_*", "would make H2O wait for another program to form its cloud"},
	{"NOTIFY_SOCKET", "is between systemd and h2ofleet"},
	{"LISTEN_*", "is between systemd and h2ofleet"},
	{"WATCHDOG_*", "is between systemd and h2ofleet"},
};

/* Options of the JVM whose value is the next word. */
static const char *const jvm_pairs[] = {"--add-modules", "--add-opens", "--add-exports",
	"--add-reads", "--limit-modules", "--patch-module", "--module-path", "-p",
	"--upgrade-module-path", "--enable-native-access"};

static bool matches(const char *pattern, const char *s, size_t n)
{
	size_t len = strlen(pattern);

	if (pattern[len - 1] == '*')
		return n >= len - 1 && memcmp(s, pattern, len - 1) == 0;
	return n == len && memcmp(s, pattern, len) == 0;
}

/* What to do instead, or NULL for a word (its first `n` bytes) that nobody minds. */
static const char *find(const struct reserved *list, size_t n_list, const char *s, size_t n)
{
	for (size_t i = 0; i < n_list; i++)
		if (matches(list[i].name, s, n))
			return list[i].instead;
	return NULL;
}

/* H2O takes "-x" and "--x" alike. */
static const char *find_h2o_option(const char *s, size_t n)
{
	for (int dashes = 0; dashes < 2 && n && *s == '-'; dashes++) {
		s++;
		n--;
	}
	return find(h2o_options, ARRAY_SIZE(h2o_options), s, n);
}

/* H2O appends "-Dai.h2o.NAME=VALUE" to its arguments as "-NAME VALUE", so these win. */
static const char *find_h2o_property(const char *word)
{
	static const char prefix[] = "-Dai.h2o.";
	const char *name = word + sizeof(prefix) - 1;
	_cleanup_free_ char *option = NULL;

	if (!has_prefix(word, prefix))
		return NULL;
	option = xasprintf("-%.*s", (int)strcspn(name, "="), name);
	return find_h2o_option(option, strlen(option));
}

static void complain(struct strbuf *b, const char *word, size_t n, const char *what)
{
	_cleanup_free_ char *part = xstrndup(word, n);
	_cleanup_free_ char *shown = types_quote(part);

	strbuf_printf(b, "%s%s %s", b->len ? "; " : "", shown, what);
}

static int conclude(struct strbuf *b, struct err *e)
{
	int r = b->len ? err_set(e, -EINVAL, "%s", strbuf_str(b)) : 0;

	strbuf_free(b);
	return r;
}

int reserved_check_h2o_args(const struct strv *words, struct err *e)
{
	struct strbuf b = STRBUF_NULL;

	if (words->n && words->v[0][0] != '-')
		complain(&b, words->v[0], strlen(words->v[0]),
			"is no option of H2O: these begin with '-'");
	for (size_t i = 0; i < words->n; i++) {
		const char *w = words->v[i];
		const char *instead = *w == '-' ? find_h2o_option(w, strlen(w)) : NULL;

		if (instead)
			complain(&b, w, strlen(w), instead);
	}
	return conclude(&b, e);
}

static bool takes_next_word(const char *w)
{
	for (size_t i = 0; i < ARRAY_SIZE(jvm_pairs); i++)
		if (streq(w, jvm_pairs[i]))
			return true;
	return false;
}

int reserved_check_jvm_args(const struct strv *words, struct err *e)
{
	struct strbuf b = STRBUF_NULL;
	bool is_value = false;

	for (size_t i = 0; i < words->n; i++) {
		const char *w = words->v[i];
		const char *instead = find(jvm_options, ARRAY_SIZE(jvm_options), w, strlen(w));

		if (!instead)
			instead = find_h2o_property(w);
		if (!instead && *w != '-' && !is_value)
			instead = "is no option of the JVM: these begin with '-'";
		if (instead)
			complain(&b, w, strlen(w), instead);
		is_value = takes_next_word(w);
	}
	if (is_value)
		complain(&b, words->v[words->n - 1], strlen(words->v[words->n - 1]),
			"needs a value behind it");
	return conclude(&b, e);
}

/* Length of the variable's name; 0: this is no "NAME=value". */
static size_t name_length(const char *w)
{
	size_t n = 0;

	while (isalnum((unsigned char)w[n]) || w[n] == '_')
		n++;
	return w[n] == '=' && !isdigit((unsigned char)w[0]) ? n : 0;
}

static bool is_named_before(const struct strv *words, size_t i, size_t n)
{
	for (size_t j = 0; j < i; j++)
		if (strncmp(words->v[j], words->v[i], n + 1) == 0)
			return true;
	return false;
}

int reserved_check_env(const struct strv *words, struct err *e)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; i < words->n; i++) {
		const char *w = words->v[i];
		size_t n = name_length(w);
		const char *instead = find(variables, ARRAY_SIZE(variables), w, n);

		if (n == 0)
			complain(&b, w, strlen(w), "is not of the form NAME=value");
		else if (instead)
			complain(&b, w, n, instead);
		else if (is_named_before(words, i, n))
			complain(&b, w, n, "is there twice");
	}
	return conclude(&b, e);
}

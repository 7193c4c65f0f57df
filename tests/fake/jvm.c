/* The JVM's part of the command line, with the texts and exit codes of OpenJDK 17. */
#include "fake.h"
#include "jvm-flags.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/text.h"

#define ARCHIVE_MAGIC "fake archive "

static void give_up(const char *fmt, ...) _printf_(1, 2) _noreturn_;

static void give_up(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nError: Could not create the Java Virtual Machine.\n"
			"Error: A fatal exception has occurred. Program will exit.\n");
	exit(1);
}

/* These go to stdout, as HotSpot writes them there. */
static void initialization_error(const char *fmt, ...) _printf_(1, 2) _noreturn_;

static void initialization_error(const char *fmt, ...)
{
	va_list ap;

	printf("Error occurred during initialization of VM\n");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	exit(1);
}

static bool takes_value(const char *a)
{
	static const char *const with_value[] = {"-cp", "-classpath", "--class-path", "--add-opens",
		"--add-exports", "--add-modules", "--add-reads", "--enable-native-access", "-p",
		"--module-path"};

	for (size_t i = 0; i < ARRAY_SIZE(with_value); i++)
		if (streq(a, with_value[i]))
			return true;
	return false;
}

static bool known_option(const char *a)
{
	static const char *const exact[] = {"-ea", "-esa", "-da", "-dsa", "-server", "-client",
		"-enableassertions", "-disableassertions", "-enablesystemassertions",
		"-disablesystemassertions", "-Xint", "-Xcomp", "-Xmixed", "-Xrs", "-Xbatch",
		"-Xcheck:jni", "-Xnoclassgc", "-Xdebug", "-Xfuture", "-verbose", "-showversion",
		"--show-version", "--enable-preview"};
	static const char *const prefix[] = {"-ea:", "-da:", "-enableassertions:",
		"-disableassertions:", "-verbose:", "-agentlib:", "-agentpath:", "-javaagent:",
		"-Xlog", "-Xshare:", "-Xbootclasspath/a:", "-Xverify", "-Xrunjdwp",
		"--add-opens=", "--add-exports=", "--add-modules=", "--add-reads=",
		"--enable-native-access=", "--illegal-access="};

	for (size_t i = 0; i < ARRAY_SIZE(exact); i++)
		if (streq(a, exact[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(prefix); i++)
		if (has_prefix(a, prefix[i]))
			return true;
	return false;
}

static int compare_flag(const void *name, const void *entry)
{
	return strcmp(name, *(const char *const *)entry);
}

static int major_version(const char *v)
{
	return atoi(has_prefix(v, "1.") ? v + 2 : v);
}

static void parse_xx(struct jvm_options *o, const char *a, bool ignore_unknown)
{
	const char *body = a + strlen("-XX:");
	const char *name = *body == '+' || *body == '-' ? body + 1 : body;
	_cleanup_free_ char *flag = xstrndup(name, strcspn(name, "="));

	if (has_prefix(body, "ErrorFile="))
		replace_str(&o->error_file, body + strlen("ErrorFile="));
	else if (has_prefix(body, "SharedArchiveFile="))
		replace_str(&o->archive, body + strlen("SharedArchiveFile="));
	else if (has_prefix(body, "DumpLoadedClassList="))
		replace_str(&o->class_list, body + strlen("DumpLoadedClassList="));
	else if (has_prefix(body, "SharedClassListFile="))
		replace_str(&o->list_read, body + strlen("SharedClassListFile="));
	else if (has_prefix(body, "AOTCache="))
		replace_str(&o->archive, body + strlen("AOTCache="));
	else if (has_prefix(body, "AOTConfiguration="))
		replace_str(&o->aot_conf, body + strlen("AOTConfiguration="));
	else if (has_prefix(body, "AOTMode="))
		replace_str(&o->aot_mode, body + strlen("AOTMode="));
	else if (streq(body, "-UsePerfData") || streq(body, "+PerfDisableSharedMem"))
		o->perf_data = false;
	else if (streq(body, "+ExitOnOutOfMemoryError"))
		o->exit_on_oom = true;
	if (has_prefix(flag, "AOT") && major_version(o->version) >= 24)
		return;
	if (!ignore_unknown && !has_prefix(name, "Flags=") &&
		!bsearch(
			flag, jvm_flags, ARRAY_SIZE(jvm_flags), sizeof(jvm_flags[0]), compare_flag))
		give_up("Unrecognized VM option '%s'", name);
}

static uint64_t parse_memory(const char *a, const char *what)
{
	uint64_t bytes;

	if (text_parse_size(a + strlen("-Xmx"), &bytes) < 0)
		give_up("Invalid %s heap size: %s", what, a);
	return bytes;
}

static void parse_option(struct jvm_options *o, const char *a, bool ignore_unknown)
{
	if (has_prefix(a, "-Xmx"))
		o->xmx = parse_memory(a, "maximum");
	else if (has_prefix(a, "-Xms"))
		o->xms = parse_memory(a, "initial");
	else if (has_prefix(a, "-Xmn") || has_prefix(a, "-Xss"))
		(void)parse_memory(a, "young or stack");
	else if (has_prefix(a, "-XX:"))
		parse_xx(o, a, ignore_unknown);
	else if (has_prefix(a, "-D"))
		strv_add(&o->props, a + 2);
	else if (streq(a, "-Xshare:dump"))
		o->share_dump = true;
	else if (streq(a, "-Xshare:on"))
		o->share_on = true;
	else if (!known_option(a))
		give_up("Unrecognized option: %s", a);
	if (streq(a, "-Xrs"))
		o->reduce_signals = true;
	strv_add(&o->args, a);
}

/* Options from the environment, which the JVM announces on stderr. */
static void parse_environment(struct jvm_options *o, const char *name, const char *prefix)
{
	const char *value = getenv(name);
	struct strv words = STRV_NULL;

	if (!value || !*value)
		return;
	fprintf(stderr, "%sPicked up %s: %s\n", prefix, name, value);
	if (strv_add_words(&words, value) == 0)
		for (size_t i = 0; i < words.n; i++)
			parse_option(o, words.v[i], false);
	strv_free(&words);
}

static void print_version(FILE *f, const char *version)
{
	fprintf(f,
		"openjdk version \"%s\"%s\n"
		"OpenJDK Runtime Environment (build %s+6-Debian-1deb12u1)\n"
		"OpenJDK 64-Bit Server VM (build %s+6-Debian-1deb12u1, mixed mode, sharing)\n",
		version, has_prefix(version, "1.") ? "" : " 2025-04-15", version, version);
}

static void check_memory(const struct jvm_options *o)
{
	/* Where mmap(2) of 47 bits of address space gives up; measured between 60 and 120 TB. */
	const uint64_t reservable = (uint64_t)100 << 40;

	if (o->xmx && o->xmx < (uint64_t)2 << 20)
		initialization_error("Too small maximum heap");
	if (o->xmx && o->xms > o->xmx)
		initialization_error(
			"Initial heap size set to a larger value than the maximum heap size");
	if (o->xmx > reservable)
		initialization_error("Could not reserve enough space for %lluKB object heap",
			(unsigned long long)(o->xmx >> 10));
}

void jvm_parse(struct node *n, int argc, char **argv, int *main_args)
{
	struct jvm_options *o = &n->jvm;
	const char *version = getenv("FAKE_JAVA_VERSION");
	bool ignore_unknown = false;
	const char *version_asked = NULL;
	int i;

	o->perf_data = true;
	o->version = xstrdup(version && *version ? version : "17.0.15");
	parse_environment(o, "JAVA_TOOL_OPTIONS", "");
	parse_environment(o, "JDK_JAVA_OPTIONS", "NOTE: ");
	for (i = 1; i < argc; i++)
		if (streq(argv[i], "-XX:+IgnoreUnrecognizedVMOptions"))
			ignore_unknown = true;
	for (i = 1; i < argc && argv[i][0] == '-'; i++) {
		const char *a = argv[i];

		if (streq(a, "--fake-knobs")) {
			faults_list(stdout);
			exit(0);
		}
		if (streq(a, "-jar")) {
			if (i + 1 >= argc)
				give_up("Error: -jar requires jar file specification");
			o->jar = xstrdup(argv[++i]);
			i++;
			break;
		}
		if (streq(a, "-version") || streq(a, "--version")) {
			check_memory(o);
			version_asked = a;
			continue;
		}
		if (streq(a, "-XshowSettings:properties")) {
			o->show_properties = true;
			continue;
		}
		if ((streq(a, "-cp") || streq(a, "-classpath")) && i + 1 < argc)
			replace_str(&o->classpath, argv[i + 1]);
		if (takes_value(a) && i + 1 < argc) {
			strv_add(&o->args, a);
			strv_add(&o->args, argv[++i]);
		} else {
			parse_option(o, a, ignore_unknown);
		}
	}
	if (version_asked) {
		jvm_check_archive(n);
		if (o->show_properties)
			fputs("Property settings:\n    java.io.tmpdir = /tmp\n"
			      "    java.library.path = /usr/java/packages/lib\n"
			      "        /fake/jni\n        /usr/lib\n    java.runtime.name = "
			      "Fake\n\n",
				stderr);
		print_version(streq(version_asked, "-version") ? stderr : stdout, o->version);
		exit(0);
	}
	if (o->aot_mode && streq(o->aot_mode, "create"))
		o->share_dump = true;
	if (!o->jar && i < argc)
		o->main_class = xstrdup(argv[i++]);
	check_memory(o);
	if (!o->jar && !o->main_class && !o->share_dump) {
		fprintf(stderr, "Usage: java [options] <mainclass> [args...]\n"
				"           (to execute a class)\n"
				"   or  java [options] -jar <jarfile> [args...]\n"
				"           (to execute a jar file)\n");
		exit(1);
	}
	*main_args = i;
}

/* "<path> <size> <mtime>" of the jar: what an archive of ours is made of. Owned by the caller. */
char *jvm_jar_identity(const struct node *n)
{
	const struct jvm_options *o = &n->jvm;
	const char *path = o->jar ? o->jar : o->classpath;
	_cleanup_free_ char *first = xstrndup(path ? path : "", strcspn(path ? path : "", ":"));
	struct stat st = {0};

	stat(first, &st);
	return xasprintf("%s %lld %lld.%09ld", first, (long long)st.st_size,
		(long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* An archive that is not ours (an empty file, say) is taken for a good one. */
bool jvm_check_archive(const struct node *n)
{
	const struct jvm_options *o = &n->jvm;
	_cleanup_free_ char *identity = jvm_jar_identity(n), *text = NULL;
	_cleanup_free_ char *want = xasprintf(ARCHIVE_MAGIC "%s\n", identity);
	bool must = o->share_on || (o->aot_mode && streq(o->aot_mode, "on"));

	if (!o->archive)
		return false;
	if (file_read_head(o->archive, 4096, &text, NULL) == 0 &&
		(!has_prefix(text, ARCHIVE_MAGIC) || has_prefix(text, want)))
		return true;
	if (!must)
		return false;
	printf("An error has occurred while processing the shared archive file.\n"
	       "A jar file is not the one used while building the shared archive file: %s\n"
	       "Error occurred during initialization of VM\n"
	       "Unable to use shared archive.\n",
		o->jar         ? o->jar
		: o->classpath ? o->classpath
			       : "-");
	exit(1);
}

const char *jvm_property(const struct node *n, const char *name)
{
	size_t len = strlen(name);

	for (size_t i = n->jvm.props.n; i-- > 0;) {
		const char *p = n->jvm.props.v[i];

		if (strncmp(p, name, len) == 0 && (p[len] == '=' || p[len] == 0))
			return p[len] ? p + len + 1 : "";
	}
	return NULL;
}

void jvm_check_jar(struct node *n)
{
	const struct jvm_options *o = &n->jvm;
	char magic[2] = {0};

	if (!o->jar) {
		if (has_prefix(o->main_class, "water."))
			return;
		fprintf(stderr,
			"Error: Could not find or load main class %s\n"
			"Caused by: java.lang.ClassNotFoundException: %s\n",
			o->main_class, o->main_class);
		node_exit(n, 1);
	}
	_cleanup_close_ int fd = open(o->jar, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "Error: Unable to access jarfile %s\n", o->jar);
		node_exit(n, 1);
	}
	if (read(fd, magic, 2) != 2 || magic[0] != 'P' || magic[1] != 'K') {
		fprintf(stderr, "Error: Invalid or corrupt jarfile %s\n", o->jar);
		node_exit(n, 1);
	}
}

static bool in_list(const char *list, int number)
{
	for (const char *p = list; p && *p; p += strcspn(p, ",")) {
		p += *p == ',';
		if (atoi(p) == number)
			return true;
	}
	return false;
}

void jvm_check_version(struct node *n)
{
	int major = major_version(n->jvm.version);
	const char *unchecked = jvm_property(n, "sys.ai.h2o.debug.noJavaVersionCheck");

	if ((major >= 8 && major <= 17) || n->h2o.allow_unsupported_java ||
		in_list(jvm_property(n, "sys.ai.h2o.debug.allowJavaVersions"), major) ||
		(unchecked && streq(unchecked, "true")))
		return;
	fprintf(stderr, "Only Java versions 8-17 are supported, system version is %s\n",
		n->jvm.version);
	node_exit(n, 3);
}

/* What a JVM with H2O leaves on disk, and what it takes away again. */
#include "fake.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pwd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "base/clock.h"
#include "base/file.h"

#define NATIVE_LIB_SIZE 65536 /* the real one has 157 MB */
#define PERF_FILE_SIZE  32768

static void write_zeros(const char *path, size_t size)
{
	_cleanup_free_ char *zeros = xcalloc(1, size);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	/* Really written, not a hole: tests of full disks count on it. */
	if (fd < 0 || write(fd, zeros, size) != (ssize_t)size)
		fprintf(stderr, "fakejava: cannot write %s\n", path);
}

/* The archive is mapped for good, so that it is seen in /proc/PID/maps. */
static void map_archive(struct node *n)
{
	const struct jvm_options *o = &n->jvm;
	_cleanup_close_ int fd = -1;

	if (o->share_dump || knob(n, KNOB_archive_ignored) || !jvm_check_archive(n))
		return;
	fd = open(o->archive, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED)
		perror("fakejava: mmap");
	n->archive_mapped = fd >= 0;
}

void files_jvm_start(struct node *n)
{
	const struct passwd *pw = getpwuid(geteuid());
	_cleanup_free_ char *dir = NULL;

	map_archive(n);
	if (n->jvm.class_list)
		file_write_atomic(n->jvm.class_list, "java/lang/Object\nwater/H2OApp\n", 30, 0644,
			false, NULL);
	if (!n->jvm.perf_data || !pw)
		return;
	/* Always in /tmp, whatever java.io.tmpdir says. */
	dir = xasprintf("/tmp/hsperfdata_%s", pw->pw_name);
	mkdir(dir, 0755);
	n->perf_file = xasprintf("%s/%d", dir, getpid());
	write_zeros(n->perf_file, PERF_FILE_SIZE);
}

/* The head names the jar; the rest is zeros, really written. */
static void write_archive(struct node *n, const char *path)
{
	_cleanup_free_ char *identity = jvm_jar_identity(n);
	size_t size = MAX((size_t)knob(n, KNOB_dump_mb) << 20, (size_t)NATIVE_LIB_SIZE);
	_cleanup_free_ char *data = xcalloc(1, size);

	snprintf(data, size, "fake archive %s\n", identity);
	if (file_write_atomic(path, data, size, 0444, false, NULL) < 0) {
		printf("Unable to write archive file %s\n", path);
		node_exit(n, 1);
	}
}

void files_dump_archive(struct node *n)
{
	const char *list = n->jvm.aot_mode ? n->jvm.aot_conf : n->jvm.list_read;

	setvbuf(stdout, NULL, _IOLBF, 0); /* node_exit() flushes nothing */
	if (list && access(list, R_OK) < 0) {
		printf("Error: Could not open %s\n", list);
		node_exit(n, 1);
	}
	if (knob(n, KNOB_dump_hang))
		pause();
	if (knob(n, KNOB_dump_fail)) {
		printf("Error occurred during initialization of VM\nUnable to allocate "
		       "metaspace\n");
		node_exit(n, 1);
	}
	write_archive(n, n->jvm.archive ? n->jvm.archive : "classes.jsa");
	node_exit(n, 0);
}

static bool in_library_path(const struct node *n, const char *lib)
{
	const char *path = jvm_property(n, "java.library.path");

	for (const char *p = path; p && *p;) {
		size_t len = strcspn(p, ":");
		_cleanup_free_ char *file = xasprintf("%.*s/%s", (int)len, p, lib);

		if (access(file, R_OK) == 0)
			return true;
		p += len + (p[len] == ':');
	}
	return false;
}

void files_native_lib(struct node *n)
{
	const char *tmp = jvm_property(n, "java.io.tmpdir");
	uint64_t seed = n->start_wall ^ ((uint64_t)getpid() << 32);

	if (in_library_path(n, "libxgboost4j_gpu.so"))
		return;
	n->native_lib = xasprintf("%s/libxgboost4j_gpu%llu.so", tmp ? tmp : "/tmp",
		(unsigned long long)(rng_next(&seed) >> 1));
	write_zeros(n->native_lib, NATIVE_LIB_SIZE);
}

void files_h2o_start(struct node *n)
{
	const struct h2o_options *o = &n->h2o;

	if (file_mkdirs(o->ice_root, 0755, NULL) < 0 || access(o->ice_root, W_OK) < 0)
		node_die(n, "ice_root not a read/writable directory");
}

void files_open_log(struct node *n)
{
	static const char *const kinds[] = {
		"1-trace", "2-debug", "3-info", "4-warn", "5-error", "6-fatal", "httpd"};
	const char *dir = n->h2o.log_dir;

	n->ice_dir = xasprintf("%s/ice%d", n->h2o.ice_root, n->port);
	mkdir(n->ice_dir, 0755);
	if (file_mkdirs(dir, 0755, NULL) < 0 || access(dir, W_OK) < 0) {
		fprintf(stderr, "main ERROR Unable to create file %s java.io.IOException\n", dir);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_free_ char *p =
			xasprintf("%s/h2o_%s_%d-%s.log", dir, inet_ntoa(n->ip), n->port, kinds[i]);
		int fd = open(p, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

		if (i == 2)
			n->log_fd = fd;
		else if (fd >= 0)
			close(fd);
	}
}

/* On every consensus, even that of size 1; not atomic; no newline; never removed. */
void files_notify(struct node *n)
{
	const char *path = n->h2o.notify_local;
	_cleanup_free_ char *dir = path ? xstrdup(path) : NULL;
	char text[32];
	int len;

	if (!path)
		return;
	if (strrchr(dir, '/')) {
		*strrchr(dir, '/') = 0;
		file_mkdirs(*dir ? dir : "/", 0755, NULL);
	}
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	len = snprintf(text, sizeof(text), "%s:%d", inet_ntoa(n->ip), n->port);
	if (fd < 0 || write(fd, text, (size_t)len) != len)
		node_die(n, "Unable to write notify file %s", path);
}

void files_brick(struct node *n)
{
	_cleanup_free_ char *p = xasprintf("%s/bricked", n->h2o.ice_root);
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	if (fd >= 0)
		close(fd);
	console_puts(n, "BRICKED: connection to the internal port\n");
}

char *files_hs_err(struct node *n)
{
	const char *pattern = n->jvm.error_file ? n->jvm.error_file : "hs_err_pid%p.log";
	struct strbuf path = STRBUF_NULL, text = STRBUF_NULL;
	_cleanup_free_ char *args = NULL;
	size_t len = 0;

	for (const char *p = pattern; *p; p++) {
		if (p[0] == '%' && p[1] == 'p') {
			strbuf_printf(&path, "%d", getpid());
			p++;
		} else {
			strbuf_add(&path, p, 1);
		}
	}
	strbuf_printf(&text,
		"#\n# A fatal error has been detected by the Java Runtime Environment:\n#\n"
		"#  SIGSEGV (0xb) at pc=0x00007f3c5d2a1b40, pid=%d, tid=%d\n#\n"
		"# JRE version: OpenJDK Runtime Environment (%s+6)\n"
		"# Problematic frame:\n# C  [libxgboost4j_gpu.so+0x1b40]  fake_crash+0x0\n#\n",
		getpid(), getpid() + 1, n->jvm.version);
	console_puts(n, strbuf_str(&text));
	if (file_read("/proc/self/cmdline", 65536, &args, &len) == 0) {
		for (size_t i = 0; i + 1 < len; i++)
			args[i] = args[i] ? args[i] : ' ';
		strbuf_printf(&text,
			"\n---------------  S U M M A R Y ------------\n\nCommand Line: %s\n\n",
			args);
	}
	file_write_atomic(strbuf_str(&path), text.s, text.len, 0644, false, NULL);
	strbuf_free(&text);
	return strbuf_take(&path);
}

/* The JVM's exit hooks remove its own files; only H2O's orderly exit removes the ice directory. */
void files_exit(struct node *n, bool orderly)
{
	if (n->jvm.aot_mode && streq(n->jvm.aot_mode, "record") && n->jvm.aot_conf)
		file_write_atomic(n->jvm.aot_conf, "water/H2OApp\n", 13, 0644, false, NULL);
	if (n->native_lib)
		unlink(n->native_lib);
	if (n->perf_file)
		unlink(n->perf_file);
	if (orderly && n->ice_dir)
		file_remove_tree(n->ice_dir, NULL);
}

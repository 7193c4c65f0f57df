/* The native libraries of XGBoost, unpacked from the jar as its loader
 * (hex.tree.xgboost.util.NativeLibrary) would do it at each boot. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <zip.h>

#include "base/strbuf.h"
#include "drv/bootwork.h"

/* The folder that the loader looks into, where the jar can have libraries for this machine: there
 * are none for others than x86-64 (3.46), and those would not load. */
#ifdef __x86_64__
#define FOLDER "lib/linux_64/"
#else
#define FOLDER NULL
#endif

#define CHUNK  (1u << 20)
#define ASK_MS 20000

struct unpacking {
	zip_t *jar;
	const char *dir;
	json_t *files;
	uint64_t total;
};

static int write_chunk(int fd, const char *p, size_t len)
{
	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno != EINTR)
			return -errno;
		p += MAX(n, 0);
		len -= (size_t)MAX(n, 0);
	}
	return 0;
}

/* libzip compares the checksum at the end. */
static int copy(zip_file_t *from, int to, struct err *e)
{
	_cleanup_free_ char *chunk = xmalloc(CHUNK);
	zip_int64_t n;
	int r = 0;

	while (r == 0 && (n = zip_fread(from, chunk, CHUNK)) != 0) {
		if (boot_told_to_end())
			return err_set(e, -EINTR, "told to end");
		if (n < 0)
			return err_set(e, -EBADMSG, "the jar is damaged: %s",
				zip_error_strerror(zip_file_get_error(from)));
		r = write_chunk(to, chunk, (size_t)n);
	}
	if (r == 0)
		r = boot_sync(to);
	if (r == -EINTR)
		return err_set(e, r, "told to end");
	return r < 0 ? err_set_errno(e, r, "cannot write") : 0;
}

static int unpack(struct unpacking *u, const zip_stat_t *st, const char *name, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", u->dir, name);
	_cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	zip_file_t *f;
	int r;

	if (fd < 0)
		return err_set_errno(e, -errno, "cannot write %s", path);
	f = zip_fopen_index(u->jar, st->index, 0);
	if (!f)
		return err_set(e, -EBADMSG, "%s: %s", st->name, zip_strerror(u->jar));
	r = copy(f, fd, e);
	zip_fclose(f);
	if (r < 0)
		return err_wrap(e, "%s", path);
	json_array_append_new(
		u->files, json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)st->size));
	return 0;
}

/* The name of a library in FOLDER, or NULL. */
static const char *library_name(const char *entry)
{
	const char *name = FOLDER && has_prefix(entry, FOLDER) ? entry + strlen(FOLDER) : NULL;
	size_t n = name ? strlen(name) : 0;

	return n > 3 && !strchr(name, '/') && streq(name + n - 3, ".so") ? name : NULL;
}

/* Calls for each library; with `dir` they are unpacked, without only counted. */
static int each_library(struct unpacking *u, struct err *e)
{
	zip_int64_t n = zip_get_num_entries(u->jar, 0);
	int r = 0;

	for (zip_int64_t i = 0; i < n && r == 0; i++) {
		const char *entry = zip_get_name(u->jar, (zip_uint64_t)i, ZIP_FL_ENC_RAW);
		const char *name = entry ? library_name(entry) : NULL;
		zip_stat_t st;

		if (!name)
			continue;
		if (zip_stat_index(u->jar, (zip_uint64_t)i, 0, &st) < 0)
			return err_set(e, -EBADMSG, "%s: %s", entry, zip_strerror(u->jar));
		u->total += st.size;
		if (u->dir)
			r = unpack(u, &st, name, e);
	}
	return r;
}

static int make(struct boot_job *job, struct unpacking *u, const char *dir, struct err *e)
{
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	const char *jar = job->rq->runtime.jar;
	bool noexec = boot_is_noexec(job->boot);
	_cleanup_free_ char *name = NULL;
	json_t *verdict;
	int r = boot_identity_of_jar(jar, &id, e);

	if (r == 0 && !noexec)
		r = each_library(u, e);
	if (r == 0)
		r = boot_check_space(job, u->total, e);
	if (r == 0 && mkdir(dir, 0755) < 0)
		r = err_set_errno(e, -errno, "cannot make %s", dir);
	u->dir = dir;
	u->total = 0;
	if (r == 0 && !noexec)
		r = each_library(u, e);
	if (r < 0)
		return r;
	verdict = json_pack("{s:o, s:s, s:O, s:I}", "identity", boot_identity_json(&id), "jar", jar,
		"libraries", u->files, "made", (json_int_t)time(NULL));
	if (noexec)
		json_object_set_new(verdict, "why",
			json_sprintf(
				"%s is mounted noexec: no library can be used there", job->boot));
	r = boot_write_verdict(dir, verdict, e);
	name = xasprintf(BOOT_NATIVE "%s", id.key);
	return r < 0 ? r : boot_publish(job, dir, name, e);
}

int boot_make_native(struct boot_job *job, struct err *e)
{
	_cleanup_free_ char *dir = xasprintf("%s/native", job->work);
	const char *jar = job->rq->runtime.jar;
	struct unpacking u = {0};
	int code = 0, r;

	u.jar = zip_open(jar, ZIP_RDONLY, &code);
	if (!u.jar) {
		zip_error_t ze;

		zip_error_init_with_code(&ze, code);
		r = err_set(e, -EBADMSG, "%s cannot be read: %s", jar, zip_error_strerror(&ze));
		zip_error_fini(&ze);
		return r;
	}
	u.files = json_array();
	r = make(job, &u, dir, e);
	json_decref(u.files);
	zip_discard(u.jar);
	return r;
}

/* "    java.library.path = /a\n        /b\n    java.runtime.name = ..." */
static char *parse_library_path(const char *properties)
{
	static const char name[] = "\n    java.library.path = ", more[] = "\n        ";
	const char *at = strstr(properties, name);
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;

	if (!at)
		return NULL;
	at += strlen(name);
	strbuf_add(&b, at, strcspn(at, "\n"));
	for (at += strcspn(at, "\n"); has_prefix(at, more); at += strcspn(at, "\n")) {
		at += strlen(more);
		strbuf_puts(&b, ":");
		strbuf_add(&b, at, strcspn(at, "\n"));
	}
	return b.len ? strbuf_take(&b) : NULL;
}

char *boot_jvm_library_path(const char *java)
{
	char *const argv[] = {(char *)(uintptr_t)java, (char *)"-XshowSettings:properties",
		(char *)"-version", NULL};
	char *const env[] = {(char *)"LC_ALL=C", NULL}; /* no LD_LIBRARY_PATH */
	_cleanup_free_ char *output = NULL;

	return boot_run(argv, env, NULL, ASK_MS, &output, NULL) == 0 ? parse_library_path(output)
								     : NULL;
}

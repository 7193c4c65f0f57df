/* In the place of libFuzzer: gives a harness the inputs that are kept, those of its corpus and
 *those that once failed, or the files that are named. Any compiler can build it, so these are tests
 *of `make check`.
 *
 *	tests/fuzz/fuzz_TARGET [FILE]... */
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>

#include "base/file.h"
#include "base/strv.h"

#define MAX_BYTES (1u << 20)
/* Under valgrind each of so many is enough: the sanitizers have them all. */
#define VALGRIND_STEP 10

static const char *now = "no input yet";

static void on_abort(int sig)
{
	static const char what[] = "the input is ";

	signal(sig, SIG_DFL);
	if (write(STDERR_FILENO, what, sizeof(what) - 1) < 0 ||
		write(STDERR_FILENO, now, strlen(now)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
		_exit(1);
	raise(sig);
}

static void run(const char *path)
{
	_cleanup_free_ char *data = NULL;
	_cleanup_free_ uint8_t *exact = NULL;
	size_t len;
	int r = file_read(path, MAX_BYTES, &data, &len);

	if (r < 0) {
		dprintf(STDERR_FILENO, "%s cannot be read: %s\n", path, strerror(-r));
		exit(1);
	}
	now = path;
	exact = xmalloc(len + 1);
	memcpy(exact, data, len);
	LLVMFuzzerTestOneInput(exact, len);
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted; owned by the caller. A folder that is missing has none. */
static struct strv files_of(const char *folder, const char *target)
{
	const char *srcdir = getenv("srcdir");
	_cleanup_free_ char *dir =
		xasprintf("%s/tests/fuzz/%s/%s", srcdir ? srcdir : ".", folder, target);
	struct strv list = STRV_NULL;
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d)))
		if (de->d_name[0] != '.')
			strv_printf(&list, "%s/%s", dir, de->d_name);
	if (d)
		closedir(d);
	if (list.n)
		qsort(list.v, list.n, sizeof(*list.v), compare);
	return list;
}

static size_t run_folder(const char *folder, const char *target, size_t step)
{
	_cleanup_(strv_free) struct strv list = files_of(folder, target);

	for (size_t i = 0; i < list.n; i += step)
		run(list.v[i]);
	return list.n;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/'), *target = strstr(name ? name : argv[0], "fuzz_");
	size_t step = getenv("H2OFLEET_VALGRIND") ? VALGRIND_STEP : 1;
	size_t n, old;

	signal(SIGABRT, on_abort);
	fuzz_begin();
	for (int i = 1; i < argc; i++)
		run(argv[i]);
	if (argc > 1 || !target)
		return argc > 1 ? 0 : 2;
	target += strlen("fuzz_");
	n = run_folder("corpus", target, step);
	old = run_folder("regressions", target, 1);
	dprintf(STDOUT_FILENO, "%zu inputs, %zu that once failed\n", n, old);
	if (n)
		return 0;
	dprintf(STDERR_FILENO, "there is no corpus of %s\n", target);
	return 1;
}

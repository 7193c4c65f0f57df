#include "fuzz.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/strbuf.h"

static int terminal = STDERR_FILENO;
static char dir[100];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	fuzz_begin();
	return 0;
}

static void remove_dir(void)
{
	if (dir[0])
		file_remove_tree(dir, NULL);
}

void fuzz_failed(const char *file, int line, const char *what, const char *text, size_t len)
{
	dprintf(terminal, "%s:%d: does not hold: %s\n", file, line, what);
	if (text)
		dprintf(terminal, "%.*s\n", (int)len, text);
	remove_dir();
	abort();
}

void fuzz_be_quiet(void)
{
	FILE *null = fopen("/dev/null", "we");

	log_set_level((enum log_level)0);
	if (!null)
		abort();
	terminal = dup(STDERR_FILENO);
	stdout = stderr = null;
}

/* Length of the UTF-8 character, 0 where it is none or a control character. Written anew, for
 * base/text.c is what it judges. */
static size_t harmless(const unsigned char *s, size_t n)
{
	uint32_t c = s[0];
	size_t more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
	static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

	if (c == '\n' || c == '\t')
		return 1;
	if ((c >= 0x80 && c < 0xc0) || c >= 0xf8 || more >= n)
		return 0;
	if (more)
		c &= 0x3fu >> more;
	for (size_t i = 1; i <= more; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return c < 0x20 || (c >= 0x7f && c < 0xa0) ? 0 : more + 1;
}

void fuzz_check_harmless(const char *s, size_t n)
{
	for (size_t i = 0, len; i < n; i += len) {
		len = harmless((const unsigned char *)s + i, n - i);
		if (!len)
			fuzz_failed(__FILE__, __LINE__, "this is harmless to a terminal", s, n);
	}
}

uint8_t fuzz_byte(struct fuzz_input *in)
{
	if (!in->n)
		return 0;
	in->n--;
	return *in->at++;
}

char *fuzz_part(struct fuzz_input *in, size_t *len)
{
	static const char mark[] = "\n--\n";
	const uint8_t *end = in->n ? memmem(in->at, in->n, mark, strlen(mark)) : NULL;
	size_t n = end ? (size_t)(end - in->at) : in->n, skip = end ? n + strlen(mark) : n;
	char *part = xmalloc(n + 1);

	if (n)
		memcpy(part, in->at, n);
	part[n] = '\0';
	if (len)
		*len = n;
	in->at += skip;
	in->n -= skip;
	return part;
}

const char *fuzz_dir(void)
{
	const char *tmp = getenv("TMPDIR");

	if (dir[0])
		return dir;
	snprintf(dir, sizeof(dir), "%s/h2ofleet-fuzz-XXXXXX", tmp && *tmp ? tmp : "/tmp");
	fuzz_check(mkdtemp(dir));
	atexit(remove_dir);
	return dir;
}

bool fuzz_try_write(const char *path, const void *data, size_t len)
{
	_cleanup_free_ char *full = xasprintf("%s/%s", fuzz_dir(), path);
	_cleanup_free_ char *parent = xstrndup(full, (size_t)(strrchr(full, '/') - full));
	_cleanup_close_ int fd = -1;

	fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	if (fd < 0 && file_mkdirs(parent, 0750, NULL) == 0)
		fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
	return fd >= 0 && write(fd, data, len) == (ssize_t)len;
}

void fuzz_write(const char *path, const void *data, size_t len)
{
	fuzz_check(fuzz_try_write(path, data, len));
}

void fuzz_empty_dir(void)
{
	fuzz_check(file_empty_dir(fuzz_dir(), NULL) == 0);
}

#include "drv/jar.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <zip.h>

#include "base/strbuf.h"

/* Records of a zip archive (APPNOTE.TXT 4.3): sizes of their fixed parts. */
#define LOCAL_SIZE     30
#define CENTRAL_SIZE   46
#define END_SIZE       22
#define LOCATOR64_SIZE 20
#define END64_SIZE     56

#define LOCAL_MAGIC     0x04034b50u
#define CENTRAL_MAGIC   0x02014b50u
#define END_MAGIC       0x06054b50u
#define LOCATOR64_MAGIC 0x07064b50u
#define END64_MAGIC     0x06064b50u

#define COMMENT_MAX   65535
#define ENTRY_MAX     (1u << 20) /* the class with the version has 905 bytes */
#define DIRECTORY_MAX (256u << 20)
#define CHUNK         (256u << 10)

#define APP_CLASS "water/H2OApp.class"

/* Best first. */
static const char *const version_classes[] = {
	"water/init/BuildVersion.class",
	"water/BuildVersion.class",
	"water/genmodel/BuildVersion.class",
};

struct entry {
	bool found;
	uint16_t method;
	uint32_t crc;
	uint32_t packed;
	uint32_t size;
	uint64_t offset; /* of its local header, in the file */
};

struct jar {
	int fd;
	uint64_t size;
	uint64_t dir_offset; /* of the central directory, in the file */
	uint64_t dir_size;
	uint64_t base; /* what offsets in the archive count from: bytes may stand in front */
	bool is_h2o;
	struct entry version[ARRAY_SIZE(version_classes)];
};

static uint16_t get16(const unsigned char *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const unsigned char *p)
{
	return (uint32_t)get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const unsigned char *p)
{
	return (uint64_t)get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put16(struct strbuf *b, unsigned v)
{
	unsigned char p[2] = {(unsigned char)v, (unsigned char)(v >> 8)};

	strbuf_add(b, p, sizeof(p));
}

static void put32(struct strbuf *b, uint32_t v)
{
	put16(b, v & 0xffff);
	put16(b, v >> 16);
}

/* All of it, or -EBADMSG where the file ends before. */
static int read_at(int fd, void *buf, size_t len, uint64_t offset)
{
	unsigned char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		p += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int open_jar(const char *path, struct jar *j, struct err *e)
{
	struct stat st;

	/* A FIFO must not hold us up. */
	j->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (j->fd < 0 && errno == ENOENT)
		return err_set(e, -ENOENT, "%s does not exist", path);
	if (j->fd < 0 && errno == EACCES)
		return err_set(e, -EACCES,
			"%s cannot be read by user %u (permission denied on it or on a directory "
			"above)",
			path, (unsigned)geteuid());
	if (j->fd < 0)
		return err_set_errno(e, -errno, "%s cannot be opened", path);
	if (fstat(j->fd, &st) < 0)
		return err_set_errno(e, -errno, "%s cannot be read", path);
	if (S_ISDIR(st.st_mode))
		return err_set(e, -EISDIR, "%s is a directory, not a jar", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EBADMSG, "%s is not a regular file", path);
	j->size = (uint64_t)st.st_size;
	return 0;
}

/* The real numbers of an archive of 65,536 entries or 4 GB and more stand in a second end record.
 */
static int read_end64(struct jar *j, uint64_t end, uint64_t *dir_end, uint64_t *dir_offset)
{
	unsigned char loc[LOCATOR64_SIZE];
	unsigned char rec[END64_SIZE];
	uint64_t at;

	if (end < LOCATOR64_SIZE + END64_SIZE ||
		read_at(j->fd, loc, sizeof(loc), end - LOCATOR64_SIZE) < 0 ||
		get32(loc) != LOCATOR64_MAGIC)
		return -ENOENT;
	/* Where the locator says, or, when bytes stand in front of the archive, just before it. */
	at = get64(loc + 8);
	if (at > end || read_at(j->fd, rec, sizeof(rec), at) < 0 || get32(rec) != END64_MAGIC)
		at = end - LOCATOR64_SIZE - END64_SIZE;
	if (read_at(j->fd, rec, sizeof(rec), at) < 0 || get32(rec) != END64_MAGIC)
		return -EBADMSG;
	j->dir_size = get64(rec + 40);
	*dir_offset = get64(rec + 48);
	*dir_end = at;
	return 0;
}

/* It may have a comment behind it, which must fit. */
static bool is_end_record(const unsigned char *p, size_t left)
{
	return get32(p) == END_MAGIC && END_SIZE + (size_t)get16(p + 20) <= left;
}

/* Finds the central directory from the end of the file. */
static int find_directory(struct jar *j)
{
	size_t n = (size_t)MIN(j->size, (uint64_t)(END_SIZE + COMMENT_MAX));
	_cleanup_free_ unsigned char *tail = xmalloc(n + 1);
	uint64_t dir_end;
	uint64_t dir_offset;
	size_t i;
	int r;

	if (n < END_SIZE)
		return -EBADMSG;
	r = read_at(j->fd, tail, n, j->size - n);
	if (r < 0)
		return r;
	for (i = n - END_SIZE; !is_end_record(tail + i, n - i); i--)
		if (i == 0)
			return -EBADMSG;
	j->dir_size = get32(tail + i + 12);
	dir_offset = get32(tail + i + 16);
	dir_end = j->size - n + i;
	if (read_end64(j, dir_end, &dir_end, &dir_offset) == -EBADMSG)
		return -EBADMSG;
	if (j->dir_size > dir_end || j->dir_size > DIRECTORY_MAX)
		return -EBADMSG;
	j->dir_offset = dir_end - j->dir_size;
	if (dir_offset > j->dir_offset)
		return -EBADMSG;
	j->base = j->dir_offset - dir_offset;
	return 0;
}

static void take_entry(struct jar *j, const unsigned char *rec, const char *name, size_t len)
{
	if (len == strlen(APP_CLASS) && memcmp(name, APP_CLASS, len) == 0)
		j->is_h2o = true;
	for (size_t i = 0; i < ARRAY_SIZE(version_classes); i++) {
		if (len != strlen(version_classes[i]) || memcmp(name, version_classes[i], len) != 0)
			continue;
		j->version[i] = (struct entry){
			.found = true,
			.method = get16(rec + 10),
			.crc = get32(rec + 16),
			.packed = get32(rec + 20),
			.size = get32(rec + 24),
			.offset = j->base + get32(rec + 42),
		};
	}
}

/* Walks the directory through a window of it: a record and its name fit in a chunk. */
static int scan_directory(struct jar *j)
{
	_cleanup_free_ unsigned char *chunk =
		xmalloc((size_t)MIN(j->dir_size, (uint64_t)CHUNK) + 1);
	uint64_t at = 0; /* of the record, in the directory */
	uint64_t win = 0;
	size_t win_len = 0;

	while (at < j->dir_size) {
		const unsigned char *rec;
		size_t name_len;
		size_t need = MIN((size_t)(j->dir_size - at), (size_t)(CENTRAL_SIZE + 65535));

		if (at + need > win + win_len) {
			int r;

			win = at;
			win_len = (size_t)MIN((uint64_t)CHUNK, j->dir_size - at);
			r = read_at(j->fd, chunk, win_len, j->dir_offset + at);
			if (r < 0)
				return r;
		}
		rec = chunk + (at - win);
		if (need < CENTRAL_SIZE || get32(rec) != CENTRAL_MAGIC)
			return -EBADMSG;
		name_len = get16(rec + 28);
		if (CENTRAL_SIZE + name_len > need)
			return -EBADMSG;
		take_entry(j, rec, (const char *)rec + CENTRAL_SIZE, name_len);
		at += CENTRAL_SIZE + name_len + get16(rec + 30) + get16(rec + 32);
	}
	return 0;
}

/* As jar_check(), but leaves the jar open. */
static int jar_open(const char *path, struct jar *j, struct err *e)
{
	unsigned char magic[4] = {0};
	int r;

	*j = (struct jar){.fd = -1};
	r = open_jar(path, j, e);
	if (r < 0)
		return r;
	r = find_directory(j);
	if (r == 0)
		r = scan_directory(j);
	if (r < 0 && r != -EBADMSG)
		return err_set_errno(e, r, "%s cannot be read", path);
	if (r == 0 && !j->is_h2o)
		return err_set(e, -EBADMSG,
			"%s is an archive without " APP_CLASS ", so it is not H2O's jar", path);
	if (r == 0)
		return 0;
	if (j->size == 0)
		return err_set(e, -EBADMSG, "%s is empty", path);
	if (read_at(j->fd, magic, sizeof(magic), 0) == 0 && get32(magic) == LOCAL_MAGIC)
		return err_set(e, -EBADMSG,
			"%s is damaged or cut off (%llu bytes): a copy or download that did not "
			"end?",
			path, (unsigned long long)j->size);
	return err_set(e, -EBADMSG, "%s is not a jar (no zip archive)", path);
}

static void jar_close(struct jar *j)
{
	closep(&j->fd);
}

int jar_check(const char *path, struct err *e)
{
	_cleanup_(jar_close) struct jar j;

	return jar_open(path, &j, e);
}

/* An archive of just this entry. */
static int miniature(const struct jar *j, const struct entry *en, struct strbuf *b)
{
	static const char name[] = "x";
	unsigned char local[LOCAL_SIZE];
	_cleanup_free_ unsigned char *data = NULL;
	uint32_t dir_offset;
	int r;

	if (en->packed > ENTRY_MAX || en->size > ENTRY_MAX)
		return -EFBIG;
	r = read_at(j->fd, local, sizeof(local), en->offset);
	if (r < 0)
		return r;
	if (get32(local) != LOCAL_MAGIC)
		return -EBADMSG;
	data = xmalloc(en->packed + 1);
	r = read_at(j->fd, data, en->packed,
		en->offset + LOCAL_SIZE + get16(local + 26) + get16(local + 28));
	if (r < 0)
		return r;
	for (int central = 0; central <= 1; central++) {
		dir_offset = (uint32_t)b->len;
		put32(b, central ? CENTRAL_MAGIC : LOCAL_MAGIC);
		if (central)
			put16(b, 20); /* made by */
		put16(b, 20);         /* needed to extract */
		put16(b, 0);          /* flags: sizes are here, not behind the data */
		put16(b, en->method);
		put32(b, 0x00210000u); /* time: 1980-01-01 */
		put32(b, en->crc);
		put32(b, en->packed);
		put32(b, en->size);
		put16(b, sizeof(name) - 1);
		put16(b, 0); /* extra field */
		for (int i = 0; central && i < 14; i += 2)
			put16(b, 0); /* comment, disk, attributes, offset of the local header */
		strbuf_add(b, name, sizeof(name) - 1);
		if (!central)
			strbuf_add(b, data, en->packed);
	}
	put32(b, END_MAGIC);
	put32(b, 0); /* disks */
	put16(b, 1);
	put16(b, 1);
	put32(b, CENTRAL_SIZE + sizeof(name) - 1);
	put32(b, dir_offset);
	put16(b, 0);
	return 0;
}

/* Unpacks it; *data has en->size bytes. */
static int read_entry(const struct jar *j, const struct entry *en, unsigned char **data)
{
	_cleanup_(strbuf_free) struct strbuf b = STRBUF_NULL;
	_cleanup_free_ unsigned char *out = NULL;
	zip_source_t *src;
	zip_file_t *f;
	zip_t *z;
	int r = miniature(j, en, &b);

	if (r < 0)
		return r;
	src = zip_source_buffer_create(b.s, b.len, 0, NULL);
	z = src ? zip_open_from_source(src, ZIP_RDONLY, NULL) : NULL;
	if (!z) {
		zip_source_free(src); /* owned by the archive once that is open */
		return -EBADMSG;
	}
	out = xmalloc(en->size + 1);
	f = zip_fopen_index(z, 0, 0);
	r = -EBADMSG;
	if (f && zip_fread(f, out, en->size) == (zip_int64_t)en->size)
		r = 0;
	if (f && zip_fclose(f) != 0)
		r = -EBADMSG;
	zip_discard(z);
	if (r == 0)
		*data = TAKE_PTR(out);
	return r;
}

int jar_read_version(const char *path, char **version, struct err *e)
{
	_cleanup_(jar_close) struct jar j;
	int r;

	*version = NULL;
	r = jar_open(path, &j, e);
	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(version_classes) && !*version; i++) {
		_cleanup_free_ unsigned char *data = NULL;

		if (j.version[i].found && read_entry(&j, &j.version[i], &data) == 0)
			*version = class_file_version(data, j.version[i].size);
	}
	return 0;
}

/* Four numbers with dots between: "3.46.0.12", and not "gha-3.46.0.11-25-gc91838115b", which is
 * another constant of the same class. */
static bool is_version(const unsigned char *s, size_t len)
{
	unsigned dots = 0;

	for (size_t i = 0; i < len; i++) {
		bool digit = s[i] >= '0' && s[i] <= '9';

		if (!digit && (s[i] != '.' || i == 0 || s[i - 1] == '.'))
			return false;
		dots += !digit;
	}
	return dots == 3 && len <= 64 && s[len - 1] != '.';
}

/* Bytes of a constant behind its tag (JVM specification, table 4.4-B); 0: unknown. Utf8 has its
 * length in front. */
static size_t constant_size(unsigned tag)
{
	switch (tag) {
	case 7:  /* Class */
	case 8:  /* String */
	case 16: /* MethodType */
	case 19: /* Module */
	case 20: /* Package */
		return 2;
	case 15: /* MethodHandle */
		return 3;
	case 3:  /* Integer */
	case 4:  /* Float */
	case 9:  /* Fieldref */
	case 10: /* Methodref */
	case 11: /* InterfaceMethodref */
	case 12: /* NameAndType */
	case 17: /* Dynamic */
	case 18: /* InvokeDynamic */
		return 4;
	case 5: /* Long */
	case 6: /* Double */
		return 8;
	default:
		return 0;
	}
}

static unsigned be16(const unsigned char *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

char *class_file_version(const void *data, size_t len)
{
	static const unsigned char magic[] = {0xca, 0xfe, 0xba, 0xbe};
	const unsigned char *p = data;
	size_t at = 10; /* behind magic, version and the pool's count */
	unsigned count;

	if (len < at || memcmp(p, magic, sizeof(magic)) != 0)
		return NULL;
	count = be16(p + 8);
	for (unsigned i = 1; i < count && at + 3 <= len; i++) {
		unsigned tag = p[at];
		size_t size = tag == 1 ? be16(p + at + 1) : constant_size(tag);

		at += tag == 1 ? 3 : 1;
		if ((size == 0 && tag != 1) || size > len - at)
			return NULL;
		if (tag == 1 && is_version(p + at, size))
			return xstrndup((const char *)p + at, size);
		at += size;
		if (tag == 5 || tag == 6)
			i++; /* takes two places in the pool */
	}
	return NULL;
}

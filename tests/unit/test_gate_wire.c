/* Messages between daemon and gate (drv/gate_wire): what is sent arrives, with its descriptors, and
 * what is not a message costs none. */
#include "cmocka_all.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "drv/gate_wire.h"

struct pair {
	int a, b;
};

static int setup(void **state)
{
	struct pair *p = xcalloc(1, sizeof(*p));
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	*p = (struct pair){fds[0], fds[1]};
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	struct pair *p = *state;

	closep(&p->a);
	closep(&p->b);
	free(p);
	return 0;
}

static unsigned open_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* The same file behind both. */
static bool same(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

static void test_message(void **state)
{
	struct pair *p = *state;
	struct gate_message m;
	json_t *body = json_pack("{s:s, s:i}", "op", "hello", "protocol", 1);

	assert_int_equal(gate_receive(p->b, &m), -EAGAIN);
	assert_int_equal(gate_send(p->a, body, NULL, 0), 0);
	assert_int_equal(gate_receive(p->b, &m), 1);
	assert_true(json_equal(body, m.body));
	assert_int_equal(m.n_fds, 0);
	gate_message_clear(&m);
	assert_null(m.body);
	json_decref(body);
}

static void test_descriptors(void **state)
{
	struct pair *p = *state;
	int fds[GATE_MAX_FDS];
	struct gate_message m;
	json_t *body = json_pack("{s:s}", "op", "door");
	unsigned before;

	for (unsigned i = 0; i < GATE_MAX_FDS; i++)
		fds[i] = memfd_create("one", MFD_CLOEXEC);
	before = open_descriptors();
	assert_int_equal(gate_send(p->a, body, fds, GATE_MAX_FDS), 0);
	assert_int_equal(gate_receive(p->b, &m), 1);
	assert_int_equal(m.n_fds, GATE_MAX_FDS);
	for (unsigned i = 0; i < GATE_MAX_FDS; i++) {
		assert_true(same(fds[i], m.fds[i]));
		assert_true(fcntl(m.fds[i], F_GETFD) & FD_CLOEXEC);
	}
	gate_message_clear(&m);
	assert_int_equal(open_descriptors(), before);
	assert_int_equal(gate_send(p->a, body, fds, GATE_MAX_FDS + 1), -EMSGSIZE);
	for (unsigned i = 0; i < GATE_MAX_FDS; i++)
		close(fds[i]);
	json_decref(body);
}

/* Nonsense is dropped with its descriptors, and the next message is read. */
static void test_nonsense(void **state)
{
	static const char *const texts[] = {"{", "[]", "7", "{\"op\":7}", "{\"up\":\"x\"}",
		"{\"op\":\"a\",\"op\":\"b\"}", "\"op\""};
	struct pair *p = *state;
	unsigned before = open_descriptors();
	json_t *body = json_pack("{s:s}", "op", "ready");
	struct gate_message m;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		assert_true(send(p->a, texts[i], strlen(texts[i]), 0) > 0);
		assert_int_equal(gate_receive(p->b, &m), -EBADMSG);
		assert_null(m.body);
	}
	assert_int_equal(gate_send(p->a, body, NULL, 0), 0);
	assert_int_equal(gate_receive(p->b, &m), 1);
	gate_message_clear(&m);
	assert_int_equal(open_descriptors(), before);
	json_decref(body);
}

/* An empty packet is taken for the end; its descriptors do not stay. */
static void test_empty_with_descriptor(void **state)
{
	struct pair *p = *state;
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} room = {.buf = {0}};
	struct msghdr h = {.msg_control = room.buf, .msg_controllen = sizeof(room.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	unsigned before = open_descriptors();
	struct gate_message m;

	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(c), &p->a, sizeof(int));
	assert_int_equal(sendmsg(p->a, &h, 0), 0);
	assert_int_equal(gate_receive(p->b, &m), 0);
	assert_int_equal(open_descriptors(), before);
}

/* More descriptors than a message may have: none is kept. */
static void test_too_many_descriptors(void **state)
{
	struct pair *p = *state;
	char text[] = "{\"op\":\"door\"}";
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(8 * sizeof(int))];
	} room = {.buf = {0}};
	struct iovec iov = {text, sizeof(text) - 1};
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = room.buf,
		.msg_controllen = sizeof(room.buf)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&h);
	unsigned before = open_descriptors();
	struct gate_message m;

	*c = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(32)};
	for (int i = 0; i < 8; i++)
		memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &p->a, sizeof(int));
	assert_true(sendmsg(p->a, &h, 0) > 0);
	assert_int_equal(gate_receive(p->b, &m), -EBADMSG);
	assert_int_equal(open_descriptors(), before);
}

static void test_size(void **state)
{
	struct pair *p = *state;
	char *big = xcalloc(1, GATE_MAX_MESSAGE + 1);
	json_t *body;
	struct gate_message m;

	memset(big, 'x', GATE_MAX_MESSAGE);
	body = json_pack("{s:s, s:s}", "op", "door", "cloud", big);
	assert_int_equal(gate_send(p->a, body, NULL, 0), -EMSGSIZE);
	json_decref(body);
	big[GATE_MAX_MESSAGE - 100] = '\0';
	body = json_pack("{s:s, s:s}", "op", "door", "cloud", big);
	assert_int_equal(gate_send(p->a, body, NULL, 0), 0);
	assert_int_equal(gate_receive(p->b, &m), 1);
	assert_true(json_equal(body, m.body));
	gate_message_clear(&m);
	json_decref(body);
	/* From somebody who does not keep to it. */
	memset(big, 'x', GATE_MAX_MESSAGE + 1);
	assert_true(send(p->a, big, GATE_MAX_MESSAGE + 1, 0) > 0);
	assert_int_equal(gate_receive(p->b, &m), -EBADMSG);
	free(big);
}

/* Neither a full socket nor a closed one holds up or kills who sends. */
static void test_full_and_gone(void **state)
{
	struct pair *p = *state;
	json_t *body = json_pack("{s:s}", "op", "knock");
	struct gate_message m;
	unsigned sent = 0;
	int rc;

	while ((rc = gate_send(p->a, body, NULL, 0)) == 0)
		sent++;
	assert_int_equal(rc, -EAGAIN);
	while (gate_receive(p->b, &m) == 1) {
		gate_message_clear(&m);
		sent--;
	}
	assert_int_equal(sent, 0);
	close(TAKE_FD(p->b));
	assert_int_equal(gate_send(p->a, body, NULL, 0), -EPIPE);
	assert_int_equal(gate_receive(p->a, &m), 0);
	json_decref(body);
}

/* Both sides see the same numbers, and mapping again (the next daemon) changes none. */
static void test_counters(_unused_ void **state)
{
	int fd = memfd_create("counters", MFD_CLOEXEC), none = open("/dev/null", O_RDONLY);
	struct gate_counters *gate = gate_counters_map(fd), *daemon;

	assert_non_null(gate);
	assert_int_equal(gate->held, 0);
	gate->held = 3;
	daemon = gate_counters_map(fd);
	assert_int_equal(daemon->held, 3);
	daemon->traffic_ms = 7;
	assert_int_equal(gate->traffic_ms, 7);
	gate_counters_unmap(gate);
	gate_counters_unmap(daemon);
	gate_counters_unmap(NULL);
	assert_null(gate_counters_map(none));
	close(none);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_message, setup, teardown),
		cmocka_unit_test_setup_teardown(test_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(test_empty_with_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_descriptors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_and_gone, setup, teardown),
		cmocka_unit_test(test_counters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

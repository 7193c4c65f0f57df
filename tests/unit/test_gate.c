/* The gate's pure parts: how a door is told to be, whose socket a line of /proc/net/tcp shows, the
 * name service, the loop's lists and timers. The program itself is tested by e2e/test_gateway.py.
 */
#include "cmocka_all.h"

#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "gate/gate.h"

/* --- door_conf ------------------------------------------------------------------------------ */

static int parse(const char *text, struct door_conf *out, struct err *e)
{
	json_t *body = json_loads(text, 0, NULL);
	int rc;

	assert_non_null(body);
	rc = door_conf_parse(body, out, e);
	json_decref(body);
	return rc;
}

static void test_door(_unused_ void **state)
{
	struct door_conf c;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&c.member;

	assert_int_equal(
		parse("{\"op\":\"door\",\"cloud\":\"dev\",\"mode\":\"hold\",\"address\":"
		      "\"127.0.0.1\",\"port\":54322,\"hold_ms\":15000,\"max_held\":7,\"knock\":"
		      "true,\"anyone\":false,\"uids\":[0,1000],\"names\":[\"group:h2o\","
		      "\"user:alice\"],\"foreign\":true,\"later\":[]}",
			&c, NULL),
		0);
	assert_string_equal(c.cloud, "dev");
	assert_int_equal(c.mode, MODE_HOLD);
	assert_int_equal(v4->sin_family, AF_INET);
	assert_int_equal(ntohs(v4->sin_port), 54322);
	assert_int_equal(c.member_len, sizeof(*v4));
	assert_int_equal(c.hold_ms, 15000);
	assert_int_equal(c.max_held, 7);
	assert_true(c.knock && !c.anyone && c.foreign);
	assert_int_equal(c.n_uids, 2);
	assert_int_equal(c.uids[1], 1000);
	assert_int_equal(c.names.n, 2);
	assert_string_equal(c.names.v[1], "user:alice");
	door_conf_clear(&c);
	assert_null(c.body);
}

/* What is not said admits nobody and holds nothing. */
static void test_door_least(_unused_ void **state)
{
	struct door_conf c;

	assert_int_equal(parse("{\"cloud\":\"v6\",\"mode\":\"open\",\"address\":\"::1\",\"port\":"
			       "1}",
				 &c, NULL),
		0);
	assert_int_equal(c.member.ss_family, AF_INET6);
	assert_int_equal(c.member_len, sizeof(struct sockaddr_in6));
	assert_false(c.anyone || c.knock || c.foreign);
	assert_int_equal(c.n_uids + c.names.n + c.max_held + c.hold_ms, 0);
	door_conf_clear(&c);
}

static void test_door_wrong(_unused_ void **state)
{
#define WITH(more)                                                                                 \
	"{\"cloud\":\"c\",\"mode\":\"open\",\"address\":\"127.0.0.1\",\"port\":5," more "}"
	static const char *const texts[][2] = {
		{"{}", "cloud"},
		{"{\"cloud\":\"c\",\"mode\":\"ajar\",\"address\":\"::1\",\"port\":5}", "ajar"},
		{"{\"cloud\":\"c\",\"mode\":\"open\",\"address\":\"localhost\",\"port\":5}",
			"localhost"},
		{"{\"cloud\":\"c\",\"mode\":\"open\",\"address\":\"::1\",\"port\":0}", "port 0"},
		{"{\"cloud\":\"c\",\"mode\":\"open\",\"address\":\"::1\",\"port\":65536}", "65536"},
		{"{\"cloud\":\"c\",\"mode\":\"hold\",\"address\":\"::1\",\"port\":-1}", "-1"},
		{WITH("\"hold_ms\":-1"), "negative"},
		{WITH("\"max_held\":-1"), "negative"},
		{WITH("\"uids\":[-1]"), "uids"},
		{WITH("\"uids\":[4294967295]"), "uids"},
		{WITH("\"uids\":[\"root\"]"), "uids"},
		{WITH("\"names\":[\"root\"]"), "names"},
		{WITH("\"names\":[7]"), "names"},
	};
#undef WITH

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct err e = ERR_NULL;
		struct door_conf c;

		assert_int_equal(parse(texts[i][0], &c, &e), -EINVAL);
		assert_non_null(strstr(err_msg(&e), texts[i][1]));
		assert_null(c.body);
		assert_null(c.uids);
		err_clear(&e);
	}
}

/* --- who ------------------------------------------------------------------------------------ */

static struct sockaddr_storage address(const char *text, uint16_t port)
{
	struct sockaddr_storage a = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&a;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
	}
	return a;
}

#define LINE(here, there, state, uid, inode)                                                       \
	"   3: " here " " there " " state " 00000000:00000000 00:00000000 00000000 " uid           \
	"        0 " inode " 1 0000000000000000 20 4 30 10 -1\n"

static void test_line(_unused_ void **state)
{
	struct sockaddr_storage client = address("127.0.0.1", 40000),
				gate = address("127.0.0.1", 54321);
#define HERE  "0100007F:9C40"
#define THERE "0100007F:D431"

	assert_int_equal(who_in_line(LINE(HERE, THERE, "01", "1000", "77"), &client, &gate), 1000);
	assert_int_equal(who_in_line(LINE(HERE, THERE, "04", "0", "77"), &client, &gate), 0);
	/* Root's by the look of it, and nobody's. */
	assert_int_equal(
		who_in_line(LINE(HERE, THERE, "04", "0", "0"), &client, &gate), UID_UNKNOWN);
	assert_int_equal(
		who_in_line(LINE(HERE, THERE, "06", "0", "77"), &client, &gate), UID_UNKNOWN);
	/* Our own side of it; another; a listener; the heading. */
	assert_int_equal(
		who_in_line(LINE(THERE, HERE, "01", "0", "77"), &client, &gate), UID_UNKNOWN);
	assert_int_equal(who_in_line(LINE("0100007F:9C41", THERE, "01", "0", "77"), &client, &gate),
		UID_UNKNOWN);
	assert_int_equal(
		who_in_line(LINE(HERE, THERE, "0A", "0", "77"), &client, &gate), UID_UNKNOWN);
	assert_int_equal(
		who_in_line("  sl  local_address rem_address   st tx_queue\n", &client, &gate),
		UID_UNKNOWN);
}

static void test_line_ipv6(_unused_ void **state)
{
	struct sockaddr_storage client = address("::1", 40000), gate = address("::1", 54321);

	assert_int_equal(
		who_in_line(LINE("00000000000000000000000001000000:9C40",
				    "00000000000000000000000001000000:D431", "01", "1001", "5"),
			&client, &gate),
		1001);
}

static void test_unmap(_unused_ void **state)
{
	struct sockaddr_storage mapped = address("::ffff:10.1.2.3", 7), v4 = address("10.1.2.3", 7);
	struct sockaddr_storage v6 = address("::1", 7), same = v6;

	who_unmap(&mapped);
	assert_memory_equal(&mapped, &v4, sizeof(v4));
	who_unmap(&v6);
	assert_memory_equal(&v6, &same, sizeof(v6));
}

/* --- the name service ----------------------------------------------------------------------- */

static bool match(uid_t uid, const char *name)
{
	struct strv names = STRV_NULL;
	bool rc;

	strv_add(&names, "group:no-such-group");
	strv_add(&names, name);
	rc = groups_match(uid, &names);
	strv_free(&names);
	return rc;
}

static void test_groups(_unused_ void **state)
{
	const struct passwd *pw = getpwuid(getuid());
	_cleanup_free_ char *user = NULL, *group = NULL, *number = NULL;
	const struct group *gr = pw ? getgrgid(pw->pw_gid) : NULL;

	if (!gr) {
		skip();
		return;
	}
	user = xasprintf("user:%s", pw->pw_name);
	group = xasprintf("group:%s", gr->gr_name);
	number = xasprintf("group:%u", pw->pw_gid);
	assert_true(match(getuid(), user));
	assert_true(match(getuid(), group));
	assert_true(match(getuid(), number));
	assert_false(match(getuid(), "user:no-such-user"));
	assert_false(match(getuid(), "group:"));
	/* A user that the name service does not know is in no group. */
	assert_false(match(123456789, group));
	assert_false(match(123456789, user));
}

/* --- the loop ------------------------------------------------------------------------------- */

static struct loop loop;
static char order[64];

struct mark {
	struct timer t;
	struct watch w;
	char name;
};

static void note(char name)
{
	order[strlen(order)] = name;
	if (name == 'z')
		loop.end = true;
}

static uint64_t deadline;

static void on_timer(struct timer *t)
{
	note(container_of(t, struct mark, t)->name);
}

static void on_turn(struct watch *w, _unused_ uint32_t events)
{
	struct mark *m = container_of(w, struct mark, w);

	note(m->name);
	if (m->name == 'a') /* once more, behind those that wait */
		loop_again(&loop, w);
	m->name = (char)(m->name - 'a' + 'A');
}

static void test_timers(_unused_ void **state)
{
	static const struct {
		char name;
		uint64_t after;
	} set[] = {{'d', 20}, {'a', 5}, {'e', 20}, {'z', 30}, {'b', 10}, {'x', 15}, {'c', 10}};
	struct mark m[ARRAY_SIZE(set)];
	uint64_t now = clock_monotonic_ms();

	memset(order, 0, sizeof(order));
	assert_int_equal(loop_init(&loop), 0);
	for (size_t i = 0; i < ARRAY_SIZE(set); i++) {
		m[i].name = set[i].name;
		timer_init(&m[i].t, on_timer);
		timer_set(&loop, &m[i].t, now + 1000 + set[i].after);
		timer_set(&loop, &m[i].t, now + set[i].after);
	}
	timer_stop(&m[5].t);
	assert_false(timer_is_set(&m[5].t));
	loop_run(&loop);
	assert_string_equal(order, "abcdez");
	assert_true(clock_monotonic_ms() >= now + 30);
	loop_free(&loop);
}

static void test_turns(_unused_ void **state)
{
	struct mark m[4] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}, {.name = 'z'}};

	memset(order, 0, sizeof(order));
	assert_int_equal(loop_init(&loop), 0);
	for (size_t i = 0; i < ARRAY_SIZE(m); i++)
		watch_init(&m[i].w, on_turn);
	timer_init(&m[3].t, on_timer);
	timer_set(&loop, &m[3].t, clock_monotonic_ms() + 20);
	for (size_t i = 0; i < 3; i++)
		loop_again(&loop, &m[i].w);
	loop_again(&loop, &m[0].w); /* no second turn by that */
	loop_unwatch(&loop, &m[1].w);
	loop_run(&loop);
	assert_string_equal(order, "acAz");
	loop_free(&loop);
}

/* Of two that are told of in the same turn the first frees the other: that one hears nothing. */
struct killer {
	struct watch w;
	struct killer *other;
	int pair[2];
	bool told;
};

static void on_kill(struct watch *w, _unused_ uint32_t events)
{
	struct killer *k = container_of(w, struct killer, w);

	k->told = true;
	loop_unwatch(&loop, &k->other->w);
	loop.end = true;
}

static void test_unwatch_in_turn(_unused_ void **state)
{
	struct killer k[2];

	assert_int_equal(loop_init(&loop), 0);
	for (int i = 0; i < 2; i++) {
		k[i].other = &k[1 - i];
		k[i].told = false;
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, k[i].pair), 0);
		watch_init(&k[i].w, on_kill);
		assert_int_equal(loop_watch(&loop, &k[i].w, k[i].pair[0], EPOLLIN), 0);
		assert_int_equal(write(k[i].pair[1], "x", 1), 1);
	}
	loop_run(&loop);
	assert_true(k[0].told != k[1].told);
	for (int i = 0; i < 2; i++) {
		close(k[i].pair[0]);
		close(k[i].pair[1]);
	}
	loop_free(&loop);
}

/* Those who always have something to say do not keep a timer from its turn. */
struct talker {
	struct watch w;
	int fd;
};

static void on_talker(struct watch *w, _unused_ uint32_t events)
{
	uint64_t one = 1;

	if (clock_monotonic_ms() > deadline)
		loop.end = true; /* in vain */
	assert_int_equal(write(w->fd, &one, sizeof(one)), sizeof(one));
}

static void test_timer_under_load(_unused_ void **state)
{
	struct talker k[LOOP_BATCH];
	struct mark m = {.name = 'z'};

	memset(order, 0, sizeof(order));
	assert_int_equal(loop_init(&loop), 0);
	deadline = clock_monotonic_ms() + 5000;
	for (size_t i = 0; i < ARRAY_SIZE(k); i++) {
		k[i].fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC);
		watch_init(&k[i].w, on_talker);
		assert_int_equal(loop_watch(&loop, &k[i].w, k[i].fd, EPOLLIN), 0);
	}
	timer_init(&m.t, on_timer);
	timer_set(&loop, &m.t, clock_monotonic_ms() + 20);
	loop_run(&loop);
	assert_string_equal(order, "z");
	for (size_t i = 0; i < ARRAY_SIZE(k); i++)
		close(k[i].fd);
	loop_free(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_door),
		cmocka_unit_test(test_door_least),
		cmocka_unit_test(test_door_wrong),
		cmocka_unit_test(test_line),
		cmocka_unit_test(test_line_ipv6),
		cmocka_unit_test(test_unmap),
		cmocka_unit_test(test_groups),
		cmocka_unit_test(test_timers),
		cmocka_unit_test(test_turns),
		cmocka_unit_test(test_unwatch_in_turn),
		cmocka_unit_test(test_timer_under_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

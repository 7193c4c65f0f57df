/* Proves the daemon's end of the conversation with the gate: messages and descriptors arrive, in
 * the loop and before it; an end is told; a gate that does not read holds nobody up. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/mman.h>
#include <sys/socket.h>

#include "drv/gate_link.h"
#include "drv_test.h"

struct scene {
	uv_loop_t loop;
	char dir[64];
	char *path;
	int listening, gate; /* the gate's side */
	struct gate_link *link;
	unsigned heard, gone, room;
	char op[32];
};

static void begin(struct scene *s)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;

	*s = (struct scene){.gate = -1};
	uv_loop_init(&s->loop);
	strcpy(s->dir, "/tmp/h2ofleet-gate-link.XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	/* Longer than an address of a unix socket may be. */
	s->path = xasprintf("%s/%0100d", s->dir, 0);
	assert_int_equal(mkdir(s->path, 0700), 0);
	free(s->path);
	s->path = xasprintf("%s/%0100d/gate", s->dir, 0);
	assert_int_equal(gate_link_open(&s->loop, s->path, &s->link), -ENOENT);
	s->listening = gate_link_listen(s->path, &e);
	assert_true(s->listening >= 0);
	assert_int_equal(gate_link_open(&s->loop, s->path, &s->link), 0);
	s->gate = accept4(s->listening, NULL, NULL, SOCK_CLOEXEC);
	assert_true(s->gate >= 0);
}

static void end(struct scene *s)
{
	gate_link_close(s->link);
	finish_loop(&s->loop);
	closep(&s->gate);
	closep(&s->listening);
	free(s->path);
	assert_int_equal(file_remove_tree(s->dir, NULL), 0);
}

static void on_message(const struct gate_message *m, void *arg)
{
	struct scene *s = arg;

	if (!m) {
		s->gone++;
		return;
	}
	s->heard++;
	snprintf(s->op, sizeof(s->op), "%s", json_string_value(json_object_get(m->body, "op")));
}

static void on_room(void *arg)
{
	struct scene *s = arg;

	s->room++;
}

static void say(int fd, const char *op)
{
	json_auto_t *j = json_pack("{s:s}", "op", op);

	assert_int_equal(gate_send(fd, j, NULL, 0), 0);
}

/* What was said before anybody listened is heard; a silence ends at its deadline. */
static void test_wait(void **state)
{
	struct gate_message m;
	struct scene s;

	(void)state;
	begin(&s);
	assert_int_equal(gate_link_wait(s.link, 10, &m), -ETIMEDOUT);
	say(s.gate, "hello");
	assert_int_equal(gate_link_wait(s.link, DEADLINE_MS, &m), 1);
	assert_string_equal(json_string_value(json_object_get(m.body, "op")), "hello");
	gate_message_clear(&m);
	closep(&s.gate);
	s.gate = -1;
	assert_int_equal(gate_link_wait(s.link, DEADLINE_MS, &m), 0);
	end(&s);
}

/* Messages come in order, nonsense is passed over, the end is told once. */
static void test_loop(void **state)
{
	struct scene s;

	(void)state;
	begin(&s);
	gate_link_start(s.link, on_message, on_room, &s);
	say(s.gate, "one");
	assert_int_equal(send(s.gate, "nonsense", 8, 0), 8);
	assert_int_equal(send(s.gate, "[1]", 3, 0), 3);
	say(s.gate, "two");
	assert_true(run_until(&s.loop, &s.heard, 2));
	assert_string_equal(s.op, "two");
	assert_int_equal(s.gone, 0);
	closep(&s.gate);
	s.gate = -1;
	assert_true(run_until(&s.loop, &s.gone, 1));
	run_for(&s.loop, 20);
	assert_int_equal(s.gone, 1);
	end(&s);
}

/* A gate that does not read: -EAGAIN, at once; and once it reads there is room again. */
static void test_back_pressure(void **state)
{
	json_auto_t *j = json_pack("{s:s, s:s}", "op", "door", "cloud", "some");
	struct gate_message m;
	struct scene s;
	int r;

	(void)state;
	begin(&s);
	gate_link_start(s.link, on_message, on_room, &s);
	while ((r = gate_link_send(s.link, j, NULL, 0)) == 0)
		continue;
	assert_int_equal(r, -EAGAIN);
	run_for(&s.loop, 20);
	assert_int_equal(s.room, 0);
	while (gate_receive(s.gate, &m) == 1)
		gate_message_clear(&m);
	assert_true(run_until(&s.loop, &s.room, 1));
	assert_int_equal(gate_link_send(s.link, j, NULL, 0), 0);
	run_for(&s.loop, 20);
	assert_int_equal(s.room, 1);
	end(&s);
}

/* Counters are one memory for both; descriptors that come are the receiver's own. */
static void test_descriptors(void **state)
{
	json_auto_t *j = json_pack("{s:s}", "op", "door");
	_cleanup_close_ int fd = memfd_create("test", MFD_CLOEXEC);
	struct gate_counters *ours = gate_counters_map(fd), *theirs;
	struct gate_message m;
	struct scene s;

	(void)state;
	assert_non_null(ours);
	begin(&s);
	assert_int_equal(gate_link_send(s.link, j, (int[]){fd, s.listening}, 2), 0);
	assert_int_equal(gate_receive(s.gate, &m), 1);
	assert_int_equal(m.n_fds, 2);
	assert_true(fcntl(m.fds[0], F_GETFD) & FD_CLOEXEC);
	theirs = gate_counters_map(m.fds[0]);
	assert_non_null(theirs);
	gate_message_clear(&m);
	atomic_store(&theirs->bytes_in, 4711);
	assert_int_equal(atomic_load(&ours->bytes_in), 4711);
	gate_counters_unmap(theirs);
	gate_counters_unmap(ours);
	end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wait),
		cmocka_unit_test(test_loop),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_descriptors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

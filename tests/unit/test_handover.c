/* What goes from one image of the daemon to the next (base/handover): this program becomes itself.
 */
#include "cmocka_all.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/handover.h"
#include "drv/ports.h"

static const char *self;

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static bool is_cloexec(int fd)
{
	return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

/* The new image: exit status 0 when all is there, and nothing else. */
static int new_image(char **argv)
{
	int pipe_end, other = atoi(argv[2]);
	struct rlimit files;
	sigset_t blocked;
	struct stat st;
	bool read;

	/* No descriptor is left: the old image may have had as many as it may. */
	getrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){STDERR_FILENO + 1, files.rlim_max});
	read = handover_read();
	setrlimit(RLIMIT_NOFILE, &files);
	if (!read || getenv("H2OFLEET_HANDOVER"))
		return 10;
	pipe_end = handover_take_fd("pipe %d", 7);
	if (pipe_end < 0 || !is_cloexec(pipe_end) || fstat(pipe_end, &st) < 0 ||
		!S_ISFIFO(st.st_mode))
		return 11;
	if (handover_take_fd("pipe %d", 7) != -1 || handover_take_fd("none") != -1)
		return 12;
	if (!streq_null(handover_word("greeting"), "a word with blanks") || handover_word("none"))
		return 13;
	if (is_open(other))
		return 14;
	if (sigprocmask(SIG_SETMASK, NULL, &blocked) < 0 || !sigismember(&blocked, SIGTERM))
		return 15;
	handover_drop();
	return is_open(pipe_end) ? 0 : 16;
}

/* Of a daemon that holds ports: exit status 0 when they are ours again, and known as such. */
static int new_holder(char **argv)
{
	uint16_t api = (uint16_t)atoi(argv[2]);
	struct port_pair p = PORT_PAIR_NULL, other = PORT_PAIR_NULL;

	if (!handover_read())
		return 20;
	if (port_pair_take_over((uint16_t)(api + 2), &other) || other.api)
		return 21;
	if (port_is_claimed(api) || !port_pair_take_over(api, &p) || p.api != api)
		return 22;
	if (!port_is_claimed(api) || !port_is_claimed((uint16_t)(api + 1)))
		return 23;
	if (p.api_hold.fd < 0 || p.internal_hold.fd < 0 || p.internal_hold.claim < 0)
		return 24;
	port_pair_release(&p);
	return port_is_claimed(api) || port_is_claimed((uint16_t)(api + 1)) ? 25 : 0;
}

/* Held ports go over, and the next image's search for free ones passes over them unasked. */
static void test_ports(_unused_ void **state)
{
	struct port_pair p = PORT_PAIR_NULL;
	uint16_t taken, api = (uint16_t)(20001 + getpid() % 10000);
	char number[16];
	int status;
	pid_t pid;

	while (port_pair_hold("127.0.0.1", "127.0.0.1", api, &p, &taken) < 0)
		api = (uint16_t)(api + 2);
	snprintf(number, sizeof(number), "%u", api);
	pid = fork();
	if (pid == 0) {
		port_pair_hand_over(&p);
		handover_exec(self, (char *[]){(char *)self, (char *)"holder", number, NULL});
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	port_pair_release(&p);
}

static void test_to_the_next(_unused_ void **state)
{
	int pair[2], status, other = open("/dev/null", O_RDONLY); /* a careless library's */
	char number[16];
	pid_t pid;

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	snprintf(number, sizeof(number), "%d", other);
	pid = fork();
	if (pid == 0) {
		handover_add_fd(pair[0], "pipe %d", 7);
		handover_add_fd(pair[1], "pipe %d", 8); /* nobody takes it */
		handover_add_fd(-1, "never");
		handover_add_word("greeting", "a word with blanks");
		handover_exec(self, (char *[]){(char *)self, (char *)"new", number, NULL});
		_exit(99);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	close(pair[0]);
	close(pair[1]);
	close(other);
}

/* An image that cannot be executed: everything is as before. */
static void test_failure_changes_nothing(_unused_ void **state)
{
	sigset_t before, after;
	int pair[2];

	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	sigprocmask(SIG_SETMASK, NULL, &before);
	handover_add_fd(pair[0], "end");
	assert_int_equal(handover_exec("/nonexistent", (char *[]){(char *)"x", NULL}), -ENOENT);
	sigprocmask(SIG_SETMASK, NULL, &after);
	assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
	assert_true(is_cloexec(pair[0]));
	assert_null(getenv("H2OFLEET_HANDOVER"));
	assert_int_equal(handover_take_fd("end"), -1);
	close(pair[0]);
	close(pair[1]);
}

/* Nonsense in the environment is no handover, and closes nothing. */
static void test_nonsense(_unused_ void **state)
{
	static const char *const values[] = {"", "1", "-5", "x", "99999"};

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		setenv("H2OFLEET_HANDOVER", values[i], 1);
		assert_false(handover_read());
		assert_null(getenv("H2OFLEET_HANDOVER"));
	}
	assert_true(is_open(1));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_to_the_next),
		cmocka_unit_test(test_ports),
		cmocka_unit_test(test_failure_changes_nothing),
		cmocka_unit_test(test_nonsense),
	};

	if (argc > 2 && streq(argv[1], "new"))
		return new_image(argv);
	if (argc > 2 && streq(argv[1], "holder"))
		return new_holder(argv);
	self = realpath("/proc/self/exe", NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* For tests that need a file system of their own. Include after <cmocka.h>. */
#pragma once

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"

/* cmocka's macros do not work in a child. */
#define NEED(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);    \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)

/* In a process and a mount namespace of its own, with a new file system on `dir`, runs `test`.
 * False where that may not be done. */
_unused_ static bool run_mounted(const char *dir, const char *type, const char *options,
	void (*test)(const void *arg), const void *arg)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
			_exit(77);
		if (mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
			mount("none", dir, type, 0, options) < 0)
			_exit(77);
		test(arg);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		return false;
	assert_int_equal(status, 0);
	return true;
}

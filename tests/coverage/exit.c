/* Linked into all programs by `configure --enable-coverage`: gcov writes its counters at exit(3),
 * fork(2) and execve(2), but neither at _exit(2) nor at execvpe(3). */
#include <unistd.h>

/* gcc's <gcov.h> has these; other compilers, which look at this file, do not have that. */
void __gcov_dump(void);
void __gcov_reset(void);

void __wrap__exit(int code) __attribute__((noreturn));
void __real__exit(int code) __attribute__((noreturn));
int __wrap_execvpe(const char *file, char *const argv[], char *const env[]);
int __real_execvpe(const char *file, char *const argv[], char *const env[]);

void __wrap__exit(int code)
{
	__gcov_dump();
	__real__exit(code);
}

int __wrap_execvpe(const char *file, char *const argv[], char *const env[])
{
	__gcov_dump();
	__gcov_reset(); /* should it fail, what follows is not counted twice */
	return __real_execvpe(file, argv, env);
}

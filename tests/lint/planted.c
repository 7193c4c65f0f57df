/* Planted defects. contrib/lint wants each found by the tool that is named behind it, so that a
 * tool which silently does nothing is noticed. Nothing builds this file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"

enum color { RED, GREEN, BLUE };

struct pair {
	int first, second;
};

int forgotten_case(enum color c);
int same_branches(int x);
int never_reached(int x);
int freed_twice(size_t n);
int left_open(const char *path);
int by_way_of_null(struct pair *p, int way);
int fall_back(int x);
int twice_evaluated(int x);
int nested(int depth);
size_t size_of_parameter(char buf[64]);
int behind_the_end(void);
int shifted_too_far(int x);
int used_uninitialized(int way);
int cleared(void);
char *never_released(size_t n);
int outside(int i);
void printed(long n);
int enum_of_nothing(void);

int forgotten_case(enum color c)
{
	switch (c) { /* gcc: -Wswitch */ /* clang: -Wswitch */
	case RED:
	case GREEN:
		return 1;
	}
	return 0;
}

int same_branches(int x)
{
	struct pair *p = x > 3 ? &(struct pair){x, x} : NULL;

	return p->first; /* gcc: -Wnull-dereference */ /* scan-build: core.NullDereference */
}

int never_reached(int x)
{
	if (x)
		return 1;
	else
		return 2;
	return x + 3; /* clang: -Wunreachable-code-return */
}

int enum_of_nothing(void)
{
	enum color c = 7; /* clang: -Wassign-enum */

	return (int)c;
}

int freed_twice(size_t n)
{
	char *p = malloc(n), *q = p;

	if (!p)
		return -1;
	free(p);
	free(q); /* fanalyzer: -Wanalyzer-double-free */
	return 0;
}

int left_open(const char *path)
{
	FILE *f = fopen(path, "re");
	int c = f ? fgetc(f) : 0;

	return c; /* fanalyzer: -Wanalyzer-file-leak */ /* cppcheck: resourceLeak */
}

int by_way_of_null(struct pair *p, int way)
{
	if (!p && way)
		return p->second; /* cppcheck: nullPointerRedundantCheck */
	return 0;
}

size_t size_of_parameter(char buf[64])
{
	memset(buf, sizeof(buf), 0); /* clang-tidy: bugprone-suspicious-memset-usage */
	return strlen(buf);
}

int fall_back(int x)
{
	if (x == 1)
		return 4; /* clang-tidy: bugprone-branch-clone */
	else if (x == 2)
		return 4;
	return x == x; /* clang-tidy: misc-redundant-expression */
}

int nested(int depth) /* clang-tidy: misc-no-recursion */
{
	return depth > 0 ? nested(depth - 1) : 0;
}

int behind_the_end(void)
{
	int a[4] = {0}, n = 4;

	return a[n]; /* cppcheck: arrayIndexOutOfBounds */
}

int shifted_too_far(int x)
{
	int bits = 40;

	return x << bits; /* cppcheck: shiftTooManyBits */
}

int used_uninitialized(int way)
{
	struct pair p;

	if (way)
		p.first = 1;
	return p.first; /* scan-build: core.uninitialized.UndefReturn */
}

char *never_released(size_t n)
{
	char *p = malloc(n), *q = strdup("x");

	free(q);
	return q; /* scan-build: unix.Malloc */
}

int outside(int i)
{
	static const int table[3] = {1, 2, 3};

	if (i < 3)
		return 0;
	return table[i]; /* scan-build: alpha.security.ArrayBoundV2 */
}

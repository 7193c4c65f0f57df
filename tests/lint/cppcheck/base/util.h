/* base/util.h as cppcheck sees it, which knows neither statement expressions nor the attribute
 * cleanup. A variable that is cleaned up is a static one to it: the one kind that needs no release.
 */
#pragma once
#include "../../../../src/base/util.h"

#undef TAKE_PTR
#undef TAKE_FD
#undef MIN
#undef MAX
#undef _cleanup_
#define TAKE_PTR(p)  (p)
#define TAKE_FD(fd)  (fd)
#define MIN(a, b)    ((a) < (b) ? (a) : (b))
#define MAX(a, b)    ((a) > (b) ? (a) : (b))
#define _cleanup_(f) static

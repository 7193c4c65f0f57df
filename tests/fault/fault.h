/* What the preloaded library and fault.py share, in a file that both have mapped.
 *
 * A *site* is a call of the C library, of libcurl or of libmicrohttpd, by the way that led to it:
 * the return addresses in the program itself, and those of the libraries between it and the call.
 * Its number is the same in every run of the same build, whatever happens meanwhile, unlike a count
 * of all calls. fault.py knows this layout (Plan). */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAULT_VERSION 1
#define FAULT_SITES   16384 /* a power of two */
#define FAULT_FRAMES  24

/* Which process of a fleet the faults are for; the others only carry the library along. */
enum fault_program {
	FAULT_DAEMON,
	FAULT_GATE,
	FAULT_ROTATE, /* h2ofleetd --rotate-logs */
};

/* Instead of an errno: a write, send or read of half of it. */
#define FAULT_SHORT (-1)

struct fault_site {
	_Atomic uint64_t id; /* 0: a free place */
	_Atomic uint32_t count;
	uint32_t in_child; /* between fork and exec, the first time */
	char call[40];
	char detail[96];
	char library[32];              /* that made the call; empty: the program itself */
	uint64_t frames[FAULT_FRAMES]; /* offsets in the program, innermost first; 0 ends them */
};

struct fault_plan {
	uint32_t version;
	uint32_t program;
	_Atomic uint32_t armed; /* calls count */
	_Atomic uint32_t fired; /* the pid whose call has failed */
	uint64_t at;            /* site; 0: none fails, all are listed */
	uint32_t nth;           /* its call that fails, from 1 */
	int32_t code;           /* with this errno, or FAULT_SHORT */
	_Atomic uint32_t hits;
	_Atomic uint32_t overflow; /* sites for which there was no place */
	struct fault_site sites[FAULT_SITES];
};

/* At the begin of a call: 0, or what it is to fail with. `detail` may be NULL. */
int fault_due(const char *call, const char *detail);

/* What is called until then does not count; not nested. */
void fault_hide(bool on);

/* Files fail in other ways than pipes and the like, where a call can only be interrupted; and where
 * it does not wait, not even that: NULL. */
const char *fault_name(int fd, const char *of_file, const char *of_other);

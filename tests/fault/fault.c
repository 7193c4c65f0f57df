/* Preloaded into the daemon (or the gate, or a rotation of logs): counts the calls that can fail,
 * by site (fault.h), and makes one of them fail, once.
 *
 * $H2OFLEET_FAULT is the file of the plan. What is forked counts with its parent until it executes
 * something. */
#include "fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <unwind.h>

#define MAX_DEPTH 96

/* The way to a call. */
struct way {
	uint64_t id;
	uint64_t frames[FAULT_FRAMES];
	size_t n;
	uintptr_t library; /* an address in the innermost one, or 0 */
};

static struct fault_plan *plan;
static uintptr_t program_from, program_to, program_base;
static uintptr_t self_from, self_to;
static pid_t program_pid;
/* Also what the library itself calls must not count. */
static __thread bool busy __attribute__((tls_model("initial-exec")));

/* ---- the way to a call ---- */

static uint64_t mix(uint64_t h, uint64_t value)
{
	h = (h ^ value) * 0xff51afd7ed558ccdu;
	return h ^ (h >> 32);
}

static uint64_t mix_text(uint64_t h, const char *s)
{
	while (*s)
		h = mix(h, (unsigned char)*s++);
	return h;
}

static uint64_t offset_in_library(uintptr_t address)
{
	struct dl_find_object found;

	if (_dl_find_object((void *)address, &found) < 0)
		return 0;
	return address - (uintptr_t)found.dlfo_map_start;
}

struct stack {
	uintptr_t at[MAX_DEPTH];
	int n;
};

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *arg)
{
	struct stack *s = arg;

	s->at[s->n++] = _Unwind_GetIP(context);
	return s->n < MAX_DEPTH ? _URC_NO_REASON : _URC_NORMAL_STOP;
}

/* Without main() on it (constructors, what follows exit()) it is none. */
static bool find_way(const char *call, struct way *w)
{
	struct stack stack = {.n = 0};
	uint64_t h = mix_text(0x9e3779b97f4a7c15u, call);

	*w = (struct way){0};
	/* Not backtrace(3): that loads a library, which the leak checker does not understand. */
	_Unwind_Backtrace(on_frame, &stack);
	for (int i = 0; i < stack.n; i++) {
		uintptr_t a = stack.at[i];

		if (a >= self_from && a < self_to)
			continue;
		if (a >= program_from && a < program_to) {
			h = mix(h, a - program_base);
			if (w->n < FAULT_FRAMES)
				w->frames[w->n] = a - program_base;
			w->n++;
		} else if (w->n == 0) {
			h = mix(h, offset_in_library(a));
			if (!w->library)
				w->library = a;
		}
	}
	w->id = h ? h : 1;
	return w->n >= 2; /* main(), _start() */
}

/* ---- counting ---- */

static void fill_in(struct fault_site *s, const struct way *w, const char *call, const char *detail)
{
	Dl_info info;

	s->in_child = getpid() != program_pid;
	snprintf(s->call, sizeof(s->call), "%s", call);
	snprintf(s->detail, sizeof(s->detail), "%s", detail ? detail : "");
	if (w->library && dladdr((void *)w->library, &info) && info.dli_fname) {
		const char *slash = strrchr(info.dli_fname, '/');

		snprintf(s->library, sizeof(s->library), "%s", slash ? slash + 1 : info.dli_fname);
	}
	memcpy(s->frames, w->frames, sizeof(s->frames));
}

static void count_site(const struct way *w, const char *call, const char *detail)
{
	for (size_t i = 0; i < FAULT_SITES; i++) {
		struct fault_site *s = &plan->sites[(w->id + i) % FAULT_SITES];
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&s->id, &none, w->id))
			fill_in(s, w, call, detail);
		else if (none != w->id)
			continue;
		atomic_fetch_add(&s->count, 1);
		return;
	}
	atomic_fetch_add(&plan->overflow, 1);
}

void fault_hide(bool on)
{
	busy = on;
}

int fault_due(const char *call, const char *detail)
{
	int saved = errno, code = 0;
	struct way w;

	if (!call || !plan || busy || !atomic_load(&plan->armed) ||
		(plan->at && atomic_load(&plan->fired)))
		return 0;
	busy = true;
	if (find_way(call, &w)) {
		if (!plan->at) {
			count_site(&w, call, detail);
		} else if (plan->at == w.id && atomic_fetch_add(&plan->hits, 1) + 1 == plan->nth) {
			atomic_store(&plan->fired, (uint32_t)getpid());
			code = plan->code;
		}
	}
	busy = false;
	errno = saved;
	return code;
}

const char *fault_name(int fd, const char *of_file, const char *of_other)
{
	const char *name = NULL;
	int saved = errno;
	struct stat st;

	if (!plan || busy)
		return NULL;
	busy = true;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		name = of_file;
	else if (!(fcntl(fd, F_GETFL) & O_NONBLOCK))
		name = of_other;
	busy = false;
	errno = saved;
	return name;
}

/* ---- the beginning ---- */

static int note_program(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size;
	(void)arg;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
			continue;
		if (program_from == 0) { /* the first is the program */
			program_base = info->dlpi_addr;
			program_from = from;
			program_to = from + p->p_memsz;
		} else if ((uintptr_t)fault_due >= from &&
			   (uintptr_t)fault_due < from + p->p_memsz) {
			self_from = from;
			self_to = from + p->p_memsz;
		}
	}
	return 0;
}

static bool is_meant(uint32_t program, int argc, char **argv)
{
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];
	bool rotates = argc > 1 && strcmp(argv[1], "--rotate-logs") == 0;

	if (program == FAULT_GATE)
		return strcmp(name, "h2ofleet-gate") == 0;
	if (strcmp(name, "h2ofleetd") != 0)
		return false;
	if (program == FAULT_ROTATE)
		return rotates;
	for (int i = 1; i < argc; i++) /* other modes; a reexec has none */
		if (strcmp(argv[i], "--check-state") == 0 ||
			strcmp(argv[i], "--end-left-behind") == 0)
			return false;
	return !rotates;
}

__attribute__((constructor)) static void begin(int argc, char **argv)
{
	const char *path = getenv("H2OFLEET_FAULT");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	struct fault_plan *p = MAP_FAILED;

	if (fd >= 0) {
		p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		close(fd);
	}
	if (p == MAP_FAILED || p->version != FAULT_VERSION || argc < 1 ||
		!is_meant(p->program, argc, argv))
		return;
	dl_iterate_phdr(note_program, NULL);
	program_pid = getpid();
	plan = p;
}

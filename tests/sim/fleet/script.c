/* What goes wrong and what people do in a run: made from the seed beforehand, so that it can be
 * written down, and parts of it left out. */
#include "world.h"

static const char *const names[N_STEP_KINDS] = {
	[STEP_KILL] = "kill",
	[STEP_EXIT] = "exit",
	[STEP_OOM] = "oom",
	[STEP_PAUSE] = "pause",
	[STEP_HANG] = "hang",
	[STEP_SLOW] = "slow",
	[STEP_LIE] = "lie",
	[STEP_LOCK] = "lock",
	[STEP_SHUTDOWN] = "shutdown",
	[STEP_THIEF] = "thief",
	[STEP_STUCK] = "stuck",
	[STEP_HELPER] = "helper",
	[STEP_JOB] = "job",
	[STEP_GRID] = "grid",
	[STEP_CLIENT] = "client",
	[STEP_START] = "start",
	[STEP_STOP] = "stop",
	[STEP_RESTART] = "restart",
	[STEP_TOUCH] = "touch",
	[STEP_RELOAD] = "reload",
	[STEP_CREATE] = "create",
	[STEP_CHANGE] = "change",
	[STEP_DELETE] = "delete",
	[STEP_CRASH] = "crash",
	[STEP_REEXEC] = "reexec",
	[STEP_DETACH] = "detach",
	[STEP_END] = "end",
	[STEP_LEFT] = "left",
	[STEP_GATE_KILL] = "gate-kill",
	[STEP_GATE_PAUSE] = "gate-pause",
	[STEP_FAULT] = "fault",
	[STEP_SLEEP] = "sleep",
	[STEP_FREEZE] = "freeze",
	[STEP_CLOCK] = "clock",
	[STEP_STRAY] = "stray",
	[STEP_REBOOT] = "reboot",
	[STEP_DAMAGE] = "damage",
	[STEP_EDIT] = "edit",
	[STEP_JOBS] = "jobs",
};

const char *step_name(enum step_kind kind)
{
	return names[kind];
}

/* How often, relative to the others. */
static const unsigned weights[N_STEP_KINDS] = {
	[STEP_KILL] = 10,
	[STEP_EXIT] = 4,
	[STEP_OOM] = 2,
	[STEP_PAUSE] = 5,
	[STEP_HANG] = 3,
	[STEP_SLOW] = 4,
	[STEP_LIE] = 5,
	[STEP_LOCK] = 4,
	[STEP_SHUTDOWN] = 3,
	[STEP_THIEF] = 4,
	[STEP_STUCK] = 2,
	[STEP_HELPER] = 2,
	[STEP_JOB] = 4,
	[STEP_GRID] = 2,
	[STEP_CLIENT] = 8,
	[STEP_START] = 8,
	[STEP_STOP] = 5,
	[STEP_RESTART] = 4,
	[STEP_TOUCH] = 2,
	[STEP_RELOAD] = 6,
	[STEP_CREATE] = 4,
	[STEP_CHANGE] = 3,
	[STEP_DELETE] = 3,
	[STEP_CRASH] = 16,
	[STEP_REEXEC] = 3,
	[STEP_DETACH] = 2,
	[STEP_END] = 1,
	[STEP_LEFT] = 1,
	[STEP_GATE_KILL] = 3,
	[STEP_GATE_PAUSE] = 2,
	[STEP_FAULT] = 8,
	[STEP_SLEEP] = 2,
	[STEP_FREEZE] = 2,
	[STEP_CLOCK] = 1,
	[STEP_STRAY] = 1,
	[STEP_REBOOT] = 1,
	[STEP_DAMAGE] = 2,
	[STEP_EDIT] = 2,
	[STEP_JOBS] = 2,
};

static enum step_kind draw_kind(uint64_t *rng)
{
	unsigned all = 0, at;

	for (unsigned k = 0; k < N_STEP_KINDS; k++)
		all += weights[k];
	at = (unsigned)(rng_next(rng) % all);
	for (unsigned k = 0; k < N_STEP_KINDS; k++) {
		if (at < weights[k])
			return (enum step_kind)k;
		at -= weights[k];
	}
	return STEP_KILL;
}

/* In bursts: what matters is what happens while something else is under way. */
void script_make(struct script *s, uint64_t seed)
{
	uint64_t rng = seed, t = 0;

	*s = (struct script){.seed = seed};
	s->n = 4 + rng_next(&rng) % 76;
	s->steps = xcalloc(s->n, sizeof(*s->steps));
	for (size_t i = 0; i < s->n; i++) {
		uint64_t how = rng_next(&rng) % 10;

		t += how < 3   ? rng_next(&rng) % 30
		     : how < 8 ? rng_next(&rng) % 2500
			       : rng_next(&rng) % 12000;
		s->steps[i] = (struct step){.at_ms = t, .kind = draw_kind(&rng)};
		s->steps[i].a = (unsigned)(rng_next(&rng) % 64);
		s->steps[i].b = (unsigned)(rng_next(&rng) % 1000);
		s->steps[i].c = (unsigned)(rng_next(&rng) % 1000);
	}
}

void script_free(struct script *s)
{
	free(s->steps);
	*s = (struct script){0};
}

char *script_text(const struct script *s)
{
	char *text = xasprintf("%" PRIu64, s->seed);

	for (size_t i = 0; i < s->n; i++) {
		const struct step *x = &s->steps[i];
		char *more = xasprintf("%s %" PRIu64 ":%s:%u:%u:%u", text, x->at_ms, names[x->kind],
			x->a, x->b, x->c);

		free(text);
		text = more;
	}
	if (!s->n) {
		free(text);
		text = xasprintf("%" PRIu64 " none", s->seed);
	}
	return text;
}

static bool parse_step(const char *word, struct step *x)
{
	char name[16];

	if (sscanf(word, "%" SCNu64 ":%15[a-z-]:%u:%u:%u", &x->at_ms, name, &x->a, &x->b, &x->c) !=
		5)
		return false;
	for (unsigned k = 0; k < N_STEP_KINDS; k++)
		if (streq(names[k], name)) {
			x->kind = (enum step_kind)k;
			return true;
		}
	return false;
}

/* A seed alone is the run that is made of it. */
bool script_parse(struct script *s, const char *text)
{
	_cleanup_(strv_free) struct strv words = STRV_NULL;
	uint64_t seed;
	char rest;

	if (strv_add_words(&words, text) < 0 || !words.n ||
		sscanf(words.v[0], "%" SCNu64 "%c", &seed, &rest) != 1)
		return false;
	if (words.n == 1) {
		script_make(s, seed);
		return true;
	}
	*s = (struct script){.seed = seed, .steps = xcalloc(words.n, sizeof(*s->steps))};
	for (size_t i = 1; i < words.n; i++)
		if (!streq(words.v[i], "none") && !parse_step(words.v[i], &s->steps[s->n++]))
			return false;
	return true;
}

#include "model/cause.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>

static const char *const names[] = {
	[CAUSE_NONE] = "none",
	[CAUSE_STOPPED] = "stopped",
	[CAUSE_ORDERLY] = "orderly",
	[CAUSE_ARGUMENTS] = "arguments",
	[CAUSE_JAVA_VERSION] = "java-version",
	[CAUSE_JVM_OPTIONS] = "jvm-options",
	[CAUSE_EXEC] = "exec",
	[CAUSE_SETUP] = "setup",
	[CAUSE_PORT_TAKEN] = "port-taken",
	[CAUSE_LOCKED_OUT] = "locked-out",
	[CAUSE_MISMATCH] = "version-mismatch",
	[CAUSE_JAVA_OOM] = "java-oom",
	[CAUSE_KERNEL_OOM] = "kernel-oom",
	[CAUSE_JVM_CRASH] = "jvm-crash",
	[CAUSE_SIGNAL] = "signal",
	[CAUSE_UNKNOWN] = "unknown",
};

const char *cause_name(enum cause c)
{
	return names[c];
}

bool cause_is_permanent(enum cause c)
{
	switch (c) {
	case CAUSE_ARGUMENTS:
	case CAUSE_JAVA_VERSION:
	case CAUSE_JVM_OPTIONS:
	case CAUSE_EXEC:
	case CAUSE_SETUP:
	case CAUSE_MISMATCH:
		return true;
	default:
		return false;
	}
}

/* What H2O or the JVM printed, and what that means together with the exit code. */
struct symptom {
	int code; /* -1: any */
	const char *text;
	enum cause cause;
	const char *meaning;
};

/* First match wins. Texts as printed by H2O 3.46 and HotSpot 17. */
static const struct symptom symptoms[] = {
	{-1, "Terminating due to java.lang.OutOfMemoryError", CAUSE_JAVA_OOM,
		"ran out of Java heap (OutOfMemoryError); give it more with max_mem_size"},
	/* "Only Java versions 8-17 are", of old ones "Only Java 8, 9 and 10 are supported" */
	{3, "Only Java ", CAUSE_JAVA_VERSION, "this Java is not supported by this H2O"},
	{1, "Could not create the Java Virtual Machine", CAUSE_JVM_OPTIONS,
		"the JVM refused its options"},
	{1, "Could not reserve enough space", CAUSE_JVM_OPTIONS,
		"the JVM could not get its heap; lower max_mem_size"},
	{1, "There is insufficient memory for the Java Runtime", CAUSE_KERNEL_OOM,
		"the JVM could not get memory from the system"},
	{1, "Unable to access jarfile", CAUSE_SETUP, "Java cannot read the jar"},
	{1, "Could not find or load main class", CAUSE_SETUP,
		"Java does not find the main class; check main_class and extra_classpath"},
	{1, "Invalid or corrupt jarfile", CAUSE_SETUP, "the jar is damaged"},
	/* Of H2O 3.30 the last one is "failed in createLog4j". */
	{1, "ERROR: ", CAUSE_ARGUMENTS, "H2O refused its arguments"},
	{-1, "no longer accepting new H2O nodes", CAUSE_LOCKED_OUT,
		"its cloud was locked by a client before it could join"},
	/* It takes a handler's schemas from the first method that reflection lists. */
	{255, "Failed to instantiate schema of class", CAUSE_UNKNOWN,
		"H2O was misled by the order in which this Java lists methods, as happens in some "
		"boots on a Java that it does not support: use one of 8 to 17"},
	{-1, "H2O version mismatch", CAUSE_MISMATCH, "another version of H2O is in its cloud"},
	{255, "required ports", CAUSE_PORT_TAKEN, "its port was taken by somebody else"},
	{255, "Cannot find free port", CAUSE_PORT_TAKEN, "it found no free port"},
	{255, "java.lang.OutOfMemoryError", CAUSE_JAVA_OOM,
		"ran out of Java heap (OutOfMemoryError); give it more with max_mem_size"},
	{1, "java.lang.OutOfMemoryError", CAUSE_JAVA_OOM,
		"ran out of Java heap (OutOfMemoryError); give it more with max_mem_size"},
};

/* Logged by every member that ends by /3/Shutdown, last but for the web server's lines
 * (h2o-core water/api/RequestServer.java, water/UDPRebooted.java). */
#define ORDERLY "Orderly shutdown"

/* Of one that was not ended by a signal, as far as is known. */
static const struct symptom *find_symptom(const struct exit_evidence *ev)
{
	for (size_t i = 0; i < ARRAY_SIZE(symptoms); i++) {
		const struct symptom *s = &symptoms[i];

		/* Where the status is not known the log has to do, but not for a final verdict. */
		bool fits = s->code < 0 ||
			    (ev->known ? s->code == ev->code : !cause_is_permanent(s->cause));

		if (fits && strstr(ev->log_tail, s->text))
			return s;
	}
	return NULL;
}

/* A line of the log that explains a symptom by itself: the first or last one with `text`, blanks
 * trimmed. */
static char *line_with(const char *log, const char *text, bool first)
{
	const char *at = NULL, *start, *end;

	for (const char *p = log; (p = strstr(p, text)) && !(first && at); p++)
		at = p;
	if (!at)
		return NULL;
	start = memrchr(log, '\n', (size_t)(at - log));
	start = start ? start + 1 : log;
	end = strchrnul(at, '\n');
	/* H2O's own prefix (time, address, thread) ends with its logger's name. */
	at = memmem(start, (size_t)(end - start), "water.default: ", 15);
	if (at)
		start = at + 15;
	while (start < end && (*start == ' ' || *start == '\t'))
		start++;
	return xstrndup(start, MIN((size_t)(end - start), (size_t)300));
}

static enum cause judge_exec(const struct exit_evidence *ev, char **why)
{
	*why = xasprintf("node %u: cannot execute %s: %s", ev->node, ev->exec_path,
		strerror(ev->exec_errno));
	switch (ev->exec_errno) { /* what the machine lacks for now says nothing of java */
	case EAGAIN:
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		return CAUSE_UNKNOWN;
	default:
		return CAUSE_EXEC;
	}
}

static enum cause judge_signal(const struct exit_evidence *ev, char **why)
{
	const char *name = sigabbrev_np(ev->signal);

	if (ev->sent_signal == ev->signal) {
		*why = xasprintf("node %u was ended by us with SIG%s", ev->node, name);
		return CAUSE_STOPPED;
	}
	if (ev->signal == SIGKILL && ev->kernel_oom) {
		*why = xasprintf("node %u was killed by the kernel's OOM killer: %s", ev->node,
			ev->memory_max_hit
				? "its cloud has reached its memory_max; raise that, or lower "
				  "max_mem_size or nodes"
				: "the machine or container ran out of memory; lower max_mem_size "
				  "or nodes");
		return CAUSE_KERNEL_OOM;
	}
	*why = xasprintf("node %u was killed by SIG%s, not by us%s", ev->node, name ? name : "?",
		ev->signal != SIGKILL  ? ""
		: ev->kernel_oom_known ? "; the kernel's OOM killer did not run"
				       : "; whether the kernel's OOM killer ran is not known");
	return CAUSE_SIGNAL;
}

/* The JVM turns SIGHUP, SIGINT and SIGTERM into exit codes 128 + n. */
static enum cause judge_code(const struct exit_evidence *ev, char **why)
{
	int sig = ev->code > 128 && ev->code < 128 + 32 ? ev->code - 128 : 0;

	if (sig == SIGHUP || sig == SIGINT || sig == SIGTERM) {
		if (ev->sent_signal == sig) {
			*why = xasprintf(
				"node %u was ended by us with SIG%s", ev->node, sigabbrev_np(sig));
			return CAUSE_STOPPED;
		}
		*why = xasprintf(
			"node %u was ended by SIG%s, not by us", ev->node, sigabbrev_np(sig));
		return CAUSE_SIGNAL;
	}
	if (ev->code == 0) {
		*why = xasprintf("node %u shut down in good order (exit 0), as after a client's "
				 "/3/Shutdown",
			ev->node);
		return CAUSE_ORDERLY;
	}
	*why = xasprintf("node %u exited with code %d%s%s", ev->node, ev->code,
		ev->output_elsewhere ? "; " : "", ev->output_elsewhere ? ev->output_elsewhere : "");
	return CAUSE_UNKNOWN;
}

static const char *advice_for(enum cause cause)
{
	switch (cause) {
	case CAUSE_ARGUMENTS:
		return "; correct h2o_args";
	case CAUSE_JVM_OPTIONS:
		return "; correct jvm_custom_args or max_mem_size";
	case CAUSE_JAVA_VERSION:
		return "; set java to another one, or allow_unsupported_java = yes";
	default:
		return "";
	}
}

static enum cause judge_symptom(const struct exit_evidence *ev, const struct symptom *s, char **why)
{
	_cleanup_free_ char *line = NULL;

	if (s->cause == CAUSE_PORT_TAKEN && ev->port_holder) {
		*why = xasprintf("node %u: %s", ev->node, ev->port_holder);
		return s->cause;
	}
	if (s->cause == CAUSE_ARGUMENTS || s->cause == CAUSE_JAVA_VERSION ||
		s->cause == CAUSE_SETUP)
		line = line_with(ev->log_tail, s->text, s->cause == CAUSE_ARGUMENTS);
	else if (s->cause == CAUSE_JVM_OPTIONS)
		line = line_with(ev->log_tail, "Invalid ", false);
	if (s->cause == CAUSE_JVM_OPTIONS && !line)
		line = line_with(ev->log_tail, "Unrecognized ", false);
	*why = xasprintf("node %u: %s%s%s%s", ev->node, s->meaning, line ? ": " : "",
		line ? line : "", advice_for(s->cause));
	return s->cause;
}

enum cause cause_of(const struct exit_evidence *ev, char **why)
{
	const struct symptom *s;

	if (ev->exec_errno)
		return judge_exec(ev, why);
	if (ev->hs_err) {
		*why = xasprintf(
			"node %u: the JVM crashed; its report is %s", ev->node, ev->hs_err);
		return CAUSE_JVM_CRASH;
	}
	if (!ev->known && ev->sent_signal) {
		*why = xasprintf("node %u was ended by us with SIG%s", ev->node,
			sigabbrev_np(ev->sent_signal));
		return CAUSE_STOPPED;
	}
	if (ev->known && ev->signal)
		return judge_signal(ev, why);
	if (ev->known && (ev->code == 0 || ev->sent_signal))
		return judge_code(ev, why);
	s = find_symptom(ev);
	if (s)
		return judge_symptom(ev, s, why);
	if (!ev->known && strstr(ev->log_tail, ORDERLY)) {
		*why = xasprintf("node %u shut down in good order, as after a client's "
				 "/3/Shutdown",
			ev->node);
		return CAUSE_ORDERLY;
	}
	if (!ev->known) {
		*why = xasprintf("node %u ended; it was started by an earlier daemon, so its exit "
				 "status is not known%s%s",
			ev->node, ev->output_elsewhere ? "; " : "",
			ev->output_elsewhere ? ev->output_elsewhere : "");
		return CAUSE_UNKNOWN;
	}
	return judge_code(ev, why);
}

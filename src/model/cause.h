/* Why did a node end? From its exit status, its last log lines and what the kernel told.
 *
 * Exit codes of H2O as measured: 0 orderly; N after /3/Shutdown = peers that did not confirm;
 * 1 arguments or an uncaught exception; 3 wrong Java (or -XX:+ExitOnOutOfMemoryError); 255 H2O.die:
 * ports, flatfile, ice_root, locked or mismatched cloud; 129/130/143 = SIGHUP/SIGINT/SIGTERM. */
#pragma once

#include "base/util.h"

enum cause {
	CAUSE_NONE,
	CAUSE_STOPPED,      /* by us, as intended */
	CAUSE_ORDERLY,      /* exit 0: somebody's /3/Shutdown */
	CAUSE_ARGUMENTS,    /* H2O refused its arguments; permanent */
	CAUSE_JAVA_VERSION, /* permanent */
	CAUSE_JVM_OPTIONS,  /* the JVM refused its options or heap; permanent */
	CAUSE_EXEC,         /* java could not be executed; permanent */
	CAUSE_SETUP,        /* ice_root, log or flatfile not usable; permanent */
	CAUSE_PORT_TAKEN,
	CAUSE_LOCKED_OUT, /* its cloud was locked before it could join */
	CAUSE_MISMATCH,   /* another H2O version in the cloud; permanent */
	CAUSE_JAVA_OOM,   /* OutOfMemoryError */
	CAUSE_KERNEL_OOM, /* the kernel's OOM killer */
	CAUSE_JVM_CRASH,  /* hs_err file */
	CAUSE_SIGNAL,     /* somebody else's signal */
	CAUSE_UNKNOWN,
};

/* "stopped", "port-taken", ...: stable words for the JSON. */
const char *cause_name(enum cause c);

/* Trying again cannot help until someone changes something. */
bool cause_is_permanent(enum cause c);

/* What is known about an end. */
struct exit_evidence {
	bool known; /* false: not our child, the status is lost */
	int code;   /* exit code, when signal == 0 */
	int signal; /* 0: exited by itself */
	bool core;
	int sent_signal; /* the last one that we sent; 0: none */
	int exec_errno;  /* execve() failed with this (positive); 0: it was executed */
	const char *exec_path;
	bool kernel_oom; /* the kernel's OOM killer ran about then, in its cgroup or at large */
	bool kernel_oom_known;
	bool memory_max_hit;  /* that was at its cloud's own limit */
	const char *hs_err;   /* path of the JVM's crash file, or NULL */
	const char *log_tail; /* last lines of stdout and stderr; "" if none */
	const char
		*output_elsewhere; /* "its output is in the journal: ..."; NULL: log_tail has it */
	const char *port_holder;   /* "port 54321 is taken by pid 812 (python3)"; NULL: not known */
	unsigned node;             /* index, for the sentence */
};

/* Judges; *why (owned by the caller) is one sentence that names the node. */
enum cause cause_of(const struct exit_evidence *ev, char **why);

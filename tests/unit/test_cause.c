/* Ends of nodes, with the texts that H2O 3.46 and HotSpot 17 print, and the sentence that people
 * get. */
#include "cmocka_all.h"

#include <errno.h>
#include <signal.h>

#include "model/cause.h"

struct sample {
	struct exit_evidence ev;
	enum cause cause;
	const char *say; /* must be part of the sentence */
};

#define ENV(...)                                                                                   \
	{                                                                                          \
		.known = true, .kernel_oom_known = true, .log_tail = "", .node = 1, __VA_ARGS__    \
	}

static const struct sample samples[] = {
	{ENV(.signal = SIGKILL), CAUSE_SIGNAL,
		"node 1 was killed by SIGKILL, not by us; the kernel's OOM killer did not run"},
	{ENV(.signal = SIGKILL, .kernel_oom_known = false), CAUSE_SIGNAL, "is not known"},
	{ENV(.signal = SIGKILL, .kernel_oom = true), CAUSE_KERNEL_OOM, "OOM killer"},
	{ENV(.signal = SIGKILL, .kernel_oom = true, .memory_max_hit = true), CAUSE_KERNEL_OOM,
		"has reached its memory_max"},
	{ENV(.signal = SIGKILL, .sent_signal = SIGKILL, .kernel_oom = true), CAUSE_STOPPED,
		"by us with SIGKILL"},
	{ENV(.signal = SIGSEGV), CAUSE_SIGNAL, "killed by SIGSEGV, not by us"},
	{ENV(.signal = SIGABRT, .hs_err = "/x/hs_err_pid1.log"), CAUSE_JVM_CRASH,
		"/x/hs_err_pid1.log"},
	{ENV(.code = 143, .sent_signal = SIGTERM), CAUSE_STOPPED, "by us with SIGTERM"},
	{ENV(.code = 143), CAUSE_SIGNAL, "ended by SIGTERM, not by us"},
	{ENV(.code = 130), CAUSE_SIGNAL, "SIGINT"},
	{ENV(.code = 0), CAUSE_ORDERLY, "/3/Shutdown"},
	{ENV(.code = 255), CAUSE_UNKNOWN, "exited with code 255"},
	{ENV(.code = 2), CAUSE_UNKNOWN, "exited with code 2"},
	{ENV(.code = 1, .log_tail = "\nERROR: Unknown argument (-bogus)\n\nUsage: ..."),
		CAUSE_ARGUMENTS, "ERROR: Unknown argument (-bogus)"},
	{ENV(.code = 3,
		 .log_tail = "Only Java versions 8-17 are supported, system version is 25\n"),
		CAUSE_JAVA_VERSION, "system version is 25"},
	{ENV(.code = 3, .log_tail = "Only Java 8, 9, 10, 11, 12 and 13 are supported, system "
				    "version is 17.0.15\n"),
		CAUSE_JAVA_VERSION, "system version is 17.0.15"},
	{ENV(.code = 255, .log_tail =
				  "4337856-23 FATAL water.default: Failed to instantiate schema of "
				  "class: water.api.Schema\n"),
		CAUSE_UNKNOWN, "use one of 8 to 17"},
	{ENV(.code = 3, .log_tail = "Terminating due to java.lang.OutOfMemoryError: Java heap "
				    "space\n"),
		CAUSE_JAVA_OOM, "max_mem_size"},
	{ENV(.code = 1, .log_tail = "Invalid maximum heap size: -Xmx99x\n"
				    "Error: Could not create the Java Virtual Machine.\n"),
		CAUSE_JVM_OPTIONS, "Invalid maximum heap size: -Xmx99x"},
	{ENV(.code = 1, .log_tail = "Unrecognized VM option 'Bogus'\n"
				    "Error: Could not create the Java Virtual Machine.\n"),
		CAUSE_JVM_OPTIONS, "Unrecognized VM option 'Bogus'"},
	{ENV(.code = 255,
		 .log_tail = "11-22 12:50:43.682 127.0.0.1:54321    812  main FATAL water.default: "
			     "On /127.0.0.1 some of the required ports 54500, 54501 are not "
			     "available, change -port PORT and try again.\n",
		 .port_holder = "port 54500 is taken by pid 812 (python3)"),
		CAUSE_PORT_TAKEN, "port 54500 is taken by pid 812 (python3)"},
	{ENV(.code = 255, .log_tail = "ERROR water.default: Attempting to join an H2O cloud that "
				      "is no longer accepting new H2O nodes from /127.0.0.1:1\n"),
		CAUSE_LOCKED_OUT, "locked by a client"},
	{ENV(.code = 255,
		 .log_tail = "Attempting to join x with an H2O version mismatch (md5 differs)"),
		CAUSE_MISMATCH, "another version"},
	{ENV(.code = 1, .log_tail = "Exception in thread \"main\" java.lang.OutOfMemoryError: "
				    "Java heap space\n"),
		CAUSE_JAVA_OOM, "ran out of Java heap"},
	{ENV(.code = 1, .log_tail = "Error: Unable to access jarfile /nowhere/h2o.jar\n"),
		CAUSE_SETUP, "/nowhere/h2o.jar"},
	{ENV(.exec_errno = ENOENT, .exec_path = "/no/java"), CAUSE_EXEC,
		"cannot execute /no/java: No such file"},
	{ENV(.exec_errno = EMFILE, .exec_path = "/a/java"), CAUSE_UNKNOWN,
		"cannot execute /a/java: Too many open files"},
	{ENV(.known = false), CAUSE_UNKNOWN, "earlier daemon"},
	{ENV(.known = false, .sent_signal = SIGTERM), CAUSE_STOPPED, "by us"},
	/* A signal without a name, and the third of those that a JVM makes exit codes of. */
	{ENV(.signal = 40), CAUSE_SIGNAL, "killed by SIG?, not by us"},
	{ENV(.code = 129), CAUSE_SIGNAL, "ended by SIGHUP, not by us"},
	{ENV(.code = 137), CAUSE_UNKNOWN, "exited with code 137"},
	/* The line of the log is shown without its prefix and its indentation. */
	{ENV(.code = 1, .log_tail = "11-22 12:50:43.682 127.0.0.1:54321    812  main FATAL "
				    "water.default: \t ERROR: Unknown argument (-x)\n"),
		CAUSE_ARGUMENTS, "arguments: ERROR: Unknown argument (-x); correct"},
	/* As H2O 3.30 says it. */
	{ENV(.code = 1, .log_tail = "\nERROR: Unknown argument (-x)\n\n\nUsage:  java\n"
				    "ERROR: failed in createLog4j, exiting now.\n"),
		CAUSE_ARGUMENTS, "arguments: ERROR: Unknown argument (-x); correct"},
	{ENV(.code = 1, .log_tail = "Error: Could not create the Java Virtual Machine.\n"),
		CAUSE_JVM_OPTIONS, "the JVM refused its options; correct"},
	/* Of whom only the log is left: what may pass is believed of it, a final verdict is not. */
	{ENV(.known = false, .log_tail = "the required ports 1, 2 are not available"),
		CAUSE_PORT_TAKEN, "its port was taken"},
	{ENV(.known = false, .log_tail = "ERROR: Unknown argument (-x)"), CAUSE_UNKNOWN,
		"exit status is not known"},
	{ENV(.known = false, .log_tail = "INFO water.default: Orderly shutdown: ...\n"),
		CAUSE_ORDERLY, "in good order"},
	/* Its output is not ours to read: the sentence says where it went. */
	{ENV(.code = 2, .output_elsewhere = "see the journal"), CAUSE_UNKNOWN,
		"code 2; see the journal"},
	{ENV(.known = false, .output_elsewhere = "see the journal"), CAUSE_UNKNOWN,
		"is not known; see the journal"},
};

/* Proves: each known end is named as what it is, in a sentence that says which node. */
static void test_samples(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		_cleanup_free_ char *why = NULL;
		enum cause c = cause_of(&samples[i].ev, &why);

		if (c != samples[i].cause || !strstr(why, samples[i].say))
			fail_msg("sample %zu: got %s: \"%s\", wanted %s: \"%s\"", i, cause_name(c),
				why, cause_name(samples[i].cause), samples[i].say);
		assert_non_null(strstr(why, "node 1"));
	}
}

/* Proves: only what trying again cannot mend is permanent. */
static void test_permanent(void **state)
{
	(void)state;
	assert_true(cause_is_permanent(CAUSE_ARGUMENTS));
	assert_true(cause_is_permanent(CAUSE_JAVA_VERSION));
	assert_true(cause_is_permanent(CAUSE_EXEC));
	assert_false(cause_is_permanent(CAUSE_SIGNAL));
	assert_false(cause_is_permanent(CAUSE_KERNEL_OOM));
	assert_false(cause_is_permanent(CAUSE_PORT_TAKEN));
	assert_false(cause_is_permanent(CAUSE_LOCKED_OUT));
	for (int c = CAUSE_NONE; c <= CAUSE_UNKNOWN; c++)
		assert_non_null(cause_name((enum cause)c));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_samples),
		cmocka_unit_test(test_permanent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

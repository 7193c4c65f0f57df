/* Ctrl-C. */
#include "cli/client.h"

#include <signal.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig _unused_)
{
	interrupted = 1;
}

void cli_catch_interrupt(void)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &sa, NULL);
}

bool cli_interrupted(void)
{
	return interrupted;
}

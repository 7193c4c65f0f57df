#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "drv/bootbuild.h"
#include "model/plan.h"

static void on_progress(unsigned step, unsigned steps, const char *what, _unused_ void *arg)
{
	printf("%u/%u %s\n", step, steps, what);
	fflush(stdout);
}

int boot_main(char **args)
{
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_(strv_free) struct strv env = STRV_NULL;
	struct boot_build rq;
	int r;

	if (bootbuild_parse_args(args, &rq) < 0) {
		fputs("h2ofleetd: --build-boot-cache is for h2ofleetd itself\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* the daemon may die meanwhile */
	plan_clean_env(environ, &env);
	rq.env = env.v;
	rq.progress = on_progress;
	r = bootcache_build(&rq, &found, &e);
	if (r < 0)
		puts(err_msg(&e));
	else if (found.verdict == BOOT_REFUSED)
		puts(found.why ? found.why : "refused");
	else
		puts(boot_verdict_name(found.verdict));
	if (r < 0)
		return r == -EBUSY ? BOOT_EXIT_BUSY : EXIT_FAILURE;
	return found.verdict == BOOT_REFUSED ? BOOT_EXIT_REFUSED : EXIT_SUCCESS;
}

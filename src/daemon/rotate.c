#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "base/text.h"
#include "daemon/daemon.h"
#include "drv/logrotate.h"

#define NICE 10
/* linux/ioprio.h: best effort, the lowest of eight. */
#define IOPRIO_LOWEST (2 << 13 | 7)

static int parse_number(const char *s, uint64_t *v)
{
	int64_t n;

	if (text_parse_int(s, &n) < 0 || n < 0)
		return -EINVAL;
	*v = (uint64_t)n;
	return 0;
}

static int parse(char **args, struct logrotate *rq)
{
	static const char *const codecs[] = {
		[LOGCODEC_ZSTD] = "zstd",
		[LOGCODEC_GZIP] = "gzip",
		[LOGCODEC_NONE] = "none",
	};

	for (size_t i = 0; i < N_ROTATE_ARGS; i++)
		if (!args[i])
			return -EINVAL;
	rq->dir = args[0];
	if (args[N_ROTATE_ARGS] || parse_number(args[1], &rq->max_size) < 0 ||
		parse_number(args[2], &rq->max_age_ms) < 0 ||
		parse_number(args[3], &rq->max_total) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(codecs); i++)
		if (streq(args[4], codecs[i])) {
			rq->codec = (enum logcodec)i;
			return 0;
		}
	return -EINVAL;
}

int rotate_main(char **args)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct logrotate rq;
	int r;

	if (parse(args, &rq) < 0) {
		fputs("h2ofleetd: --rotate-logs is for h2ofleetd itself\n", stderr);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN); /* the daemon may die meanwhile */
	signal(SIGXFSZ, SIG_IGN);
	umask(S_IWGRP | S_IRWXO);
	setpriority(PRIO_PROCESS, 0, NICE);
	syscall(SYS_ioprio_set, 1, 0, IOPRIO_LOWEST);
	r = logrotate_run(&rq, &e);
	if (r < 0)
		puts(err_msg(&e));
	return r == -EBUSY ? ROTATE_EXIT_BUSY : r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Why does a JVM not use the archive that it was given? Asked by core/boot.c, which must not wait
 * for the answer. */
#include <stdio.h>

#include "daemon/daemon.h"
#include "drv/bootbuild.h"

int explain_main(char **args)
{
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_free_ char *complaint = NULL;
	struct boot_build rq;

	if (bootbuild_parse_args(args, &rq) < 0) {
		fputs("h2ofleetd: --explain-boot-cache is for h2ofleetd itself\n", stderr);
		return 2;
	}
	if (bootcache_find(rq.cache_dir, &rq.runtime, &found, NULL) < 0)
		return EXIT_FAILURE;
	complaint = bootcache_complaint(&rq.runtime, &found);
	if (complaint)
		puts(complaint);
	return EXIT_SUCCESS;
}

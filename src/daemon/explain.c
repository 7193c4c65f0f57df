/* Why does a JVM not use the archive that it was given? Asked by core/boot.c, which must not wait
 * for the answer. */
#include <stdio.h>

#include "daemon/daemon.h"
#include "drv/bootbuild.h"

int explain_main(char **args)
{
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_free_ char *why = NULL;
	struct boot_build rq;
	int r;

	if (bootbuild_parse_args(args, &rq) < 0) {
		fputs("h2ofleetd: --explain-boot-cache is for h2ofleetd itself\n", stderr);
		return 2;
	}
	if (bootcache_find(rq.cache_dir, &rq.runtime, &found, NULL) < 0)
		return EXIT_FAILURE;
	r = bootcache_is_accepted(&rq.runtime, &found, &why);
	if (r != 0)
		return r > 0 ? BOOT_EXIT_ACCEPTED : EXIT_FAILURE;
	puts(why);
	return EXIT_SUCCESS;
}

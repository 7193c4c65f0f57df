#include "drv/activation.h"

#include <systemd/sd-daemon.h>

#include "base/log.h"

static struct {
	char **names; /* owned, as its strings; NULL where taken */
	unsigned n;
} passed;

unsigned activation_init(void)
{
	int n = sd_listen_fds_with_names(1, &passed.names);

	passed.n = n > 0 ? (unsigned)n : 0;
	return passed.n;
}

int activation_take(const char *name)
{
	for (unsigned i = 0; i < passed.n; i++)
		if (passed.names[i] && streq(passed.names[i], name)) {
			free(TAKE_PTR(passed.names[i]));
			return SD_LISTEN_FDS_START + (int)i;
		}
	return -1;
}

void activation_close_rest(void)
{
	for (unsigned i = 0; i < passed.n; i++) {
		if (!passed.names[i])
			continue;
		log_warning("systemd passed a descriptor named '%s', which nothing here uses; a "
			    "socket unit for the control socket needs FileDescriptorName=control",
			passed.names[i]);
		close(SD_LISTEN_FDS_START + (int)i);
		free(passed.names[i]);
	}
	free(TAKE_PTR(passed.names));
	passed.n = 0;
}

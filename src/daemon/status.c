#include <stdio.h>

#include <systemd/sd-daemon.h>

#include "core/trouble.h"
#include "daemon/daemon.h"

void status_publish(struct daemon *d)
{
	size_t n = fleet_n_clouds(d->fleet), usable = 0;
	const char *trouble = NULL, *word = NULL, *ours = fleet_trouble(d->fleet);
	char status[sizeof(d->last_status)];

	for (size_t i = 0; i < n; i++) {
		const struct cloud *c = fleet_cloud(d->fleet, i);

		usable += cloud_usable(c);
		if (!cloud_usable(c) && c->wanted == WANTED_RUNNING && !trouble) {
			trouble = c->conf->name;
			word = cloud_state_name(c->state);
		}
	}
	snprintf(status, sizeof(status), "%s%zu of %zu clouds usable%s%s%s%s%s%s",
		d->ending ? "Stopping: " : "", usable, n, trouble ? "; " : "",
		trouble ? trouble : "", trouble ? " is " : "", trouble ? word : "",
		ours ? "; " : "", ours ? ours : "");
	if (streq(status, d->last_status))
		return;
	memcpy(d->last_status, status, sizeof(status));
	sd_notifyf(0, "STATUS=%s", status);
}

static void on_status_timer(uv_timer_t *t)
{
	status_publish(t->data);
}

void status_start(struct daemon *d)
{
	uv_timer_init(&d->loop, &d->status);
	d->status.data = d;
	uv_timer_start(&d->status, on_status_timer, 1000, 1000);
}

void status_close(struct daemon *d)
{
	uv_close((uv_handle_t *)&d->status, NULL);
}

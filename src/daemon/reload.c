/* The configuration again: by SIGHUP and by POST /v1/reload. */
#include <errno.h>

#include <jansson.h>

#include "base/log.h"
#include "daemon/daemon.h"

/* Files that were moved away must not stop every cloud. */
static int check_files(const struct conf *old, const struct conf *new, struct strv *errors)
{
	if (!old->files.n || new->files.n)
		return 0;
	strv_printf(errors,
		"there is no configuration file any more, as %s; an empty one would mean the "
		"defaults",
		old->files.v[0]);
	return -ENOENT;
}

static int load(struct daemon *d, struct conf **out, struct strv *errors)
{
	_cleanup_(conf_freep) struct conf *conf = NULL;
	struct conf_errors found = {0};
	const struct conf_source from = {
		.file = d->options->file,
		/* Where they are until the daemon is started anew. */
		.state_dir = fleet_conf(d->fleet)->fleet.state_dir,
		.strict = true,
	};
	int r = conf_load_all(&from, &conf, &found);

	strv_free(errors);
	*errors = found.list; /* taken over */
	if (r == 0)
		r = check_files(fleet_conf(d->fleet), conf, errors);
	if (r == 0)
		*out = TAKE_PTR(conf);
	return r;
}

static int reload(struct daemon *d, const struct reload_options *opts, struct reload_report *out)
{
	struct conf *conf = NULL;
	int r;

	if (d->ending)
		return fleet_reload(d->fleet, NULL, opts, out);
	r = load(d, &conf, &out->errors);
	if (r == 0)
		r = fleet_reload(d->fleet, conf, opts, out);
	if (r == 0 && !opts->dry_run)
		warn_of_conf(fleet_conf(d->fleet));
	if (r == 0 && !opts->dry_run && !d->options->debug)
		log_set_level((enum log_level)fleet_conf(d->fleet)->fleet.log_level);
	return r;
}

/* What changed, without the values: followers are told who may not see these. */
static json_t *changes_json(const struct conf_diff *d)
{
	json_t *list = json_array();

	for (size_t i = 0; i < d->n; i++)
		if (d->clouds[i].kind != CHANGE_NONE)
			json_array_append_new(
				list, json_pack("{s:s, s:s, s:b}", "cloud", d->clouds[i].name,
					      "change", cloud_change_name(d->clouds[i].kind),
					      "applied", d->clouds[i].applied));
	return list;
}

static void tell(struct daemon *d, int r, const struct reload_report *report)
{
	json_t *extra = json_object(), *changes = changes_json(&report->diff);
	size_t changed = json_array_size(changes);

	json_object_set_new(extra, "refused", json_boolean(r < 0));
	json_object_set_new(extra, "changes", changes);
	if (r < 0)
		fleet_event(d->fleet, "reload", NULL, -1, extra,
			/* what is wrong may quote what only some may read */
			"the configuration was read again and refused, for %zu reasons: h2ofleet "
			"reload --dry-run tells them",
			report->errors.n);
	else
		fleet_event(d->fleet, "reload", NULL, -1, extra,
			"the configuration was read again: %zu of %zu clouds changed", changed,
			report->diff.n);
}

int daemon_reload(struct daemon *d, const struct reload_options *opts, struct reload_report *out)
{
	bool told = !opts->dry_run && !d->ending;
	int r;

	if (told)
		status_reloading(d);
	r = reload(d, opts, out);
	for (size_t i = 0; i < out->errors.n; i++)
		log_error("reload: %s", out->errors.v[i]);
	if (r < 0)
		log_error("reload: refused; all goes on as it was");
	if (opts->dry_run)
		return r;
	tell(d, r, out);
	if (told)
		status_reloaded(d);
	return r;
}

void daemon_reload_and_log(struct daemon *d)
{
	_cleanup_(reload_report_clear) struct reload_report report = {0};
	struct reload_options opts = {0};

	daemon_reload(d, &opts, &report); /* what it did is in the log */
}

/* What a daemon finds on the disk when it starts: a cloud's state, the file of a created cloud, the
 * journal, an incident, an entry of the boot cache. Damaged, of another version or made up, it is
 * refused or used, never half; and what we write ourselves after that is read again. The first byte
 * says which. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <zlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "conf/created.h"
#include "core/incidents.h"
#include "core/internal.h"
#include "core/journal.h"
#include "drv/bootentry.h"
#include "drv/machine.h"

#define FLEET_ID "0123456789abcdef"
#define STEPS    40
#define APPENDED 3 /* to a journal */

static void write_json(const char *path, const json_t *j)
{
	_cleanup_free_ char *text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);

	fuzz_check(text);
	fuzz_write(path, text, strlen(text));
}

/* --- a cloud's state ---------------------------------------------------------------------- */

static void set_missing(json_t *j, const char *key, json_t *value)
{
	if (json_object_get(j, key))
		json_decref(value);
	else
		json_object_set_new(j, key, value);
}

/* The input is what stands under "state", or the whole file: boot, fleet and checksum, which no
 * fuzzer could guess, are made right where they are missing. */
static void write_state(const struct fuzz_input *in)
{
	json_t *state = json_loadb((const char *)in->at, in->n, JSON_ALLOW_NUL, NULL);
	_cleanup_free_ char *text = NULL, *sum = NULL;
	json_t *file;
	char boot[40];

	if (!json_is_object(state) || json_object_get(state, "checksum")) {
		json_decref(state);
		fuzz_write("clouds/dev/state.json", in->at, in->n);
		return;
	}
	machine_boot_id(boot);
	set_missing(state, "boot_id", json_string(boot));
	set_missing(state, "fleet", json_string(FLEET_ID));
	text = json_dumps(state, JSON_COMPACT | JSON_SORT_KEYS);
	sum = xasprintf(
		"crc32:%08lx", crc32(0, (const unsigned char *)text, (unsigned)strlen(text)));
	file = json_pack("{s:i, s:s, s:o}", "version", 2, "checksum", sum, "state", state);
	write_json("clouds/dev/state.json", file);
	json_decref(file);
}

static uv_loop_t loop;

static struct conf *new_conf(void)
{
	struct conf *conf = xcalloc(1, sizeof(*conf));

	conf->fleet.state_dir = xstrdup(fuzz_dir());
	conf->fleet.log_dir = xasprintf("%s/log", fuzz_dir());
	conf->fleet.baseport = 54321;
	conf->clouds = xcalloc(1, sizeof(*conf->clouds));
	conf->clouds[0] = cloud_conf_new("dev");
	conf->clouds[0]->nodes = 2;
	conf->clouds[0]->baseport = 54321;
	conf->n_clouds = 1;
	return conf;
}

/* As supervised_new() does it, but for what looks at processes. */
static void load_cloud(struct fleet *f, struct supervised *s)
{
	f->conf = new_conf();
	s->fleet = f;
	s->dir = xasprintf("%s/clouds/dev", fuzz_dir());
	s->log_dir = xasprintf("%s/log/dev", fuzz_dir());
	s->cloud = cloud_new(f->conf->clouds[0], 1);
	members_make(s);
	state_load(s);
}

static void drop_cloud(struct fleet *f, struct supervised *s)
{
	members_free(s);
	cloud_free(s->cloud);
	cloud_conf_free(s->pending);
	conf_free(f->conf);
	runtime_clear(&s->runtime);
	free(s->dir);
	free(s->log_dir);
	free(s->recovery_dir);
	free(s->ignored_recovery);
	free(s->resumed_recovery);
}

/* No member is launched into a slot that is in use; clients are sent to a whole cloud alone. */
static void check_actions(struct cloud *c, const bool *was_alive)
{
	for (size_t i = 0; i < c->n_actions; i++) {
		const struct action *a = &c->actions[i];

		fuzz_check(a->node < c->n_nodes);
		fuzz_check(a->type != ACTION_LAUNCH || !was_alive[a->node]);
	}
	fuzz_check(!cloud_usable(c) || cloud_nodes_alive(c) == c->n_nodes);
	cloud_drop_actions(c);
	cloud_drop_transitions(c);
}

static void step(struct cloud *c, const struct cloud_event *ev, uint64_t now)
{
	bool was_alive[2];

	fuzz_check(c->n_nodes <= ARRAY_SIZE(was_alive));
	for (size_t i = 0; i < c->n_nodes; i++)
		was_alive[i] = node_alive(&c->nodes[i]);
	cloud_step(c, ev, now);
	check_actions(c, was_alive);
}

/* It goes on from what was remembered; then its members turn out to be gone. */
static void resume(struct supervised *s)
{
	struct exit_evidence end = {.known = true, .code = 1, .log_tail = ""};
	struct cloud *c = s->cloud;
	uint64_t now = fleet_now(s->fleet);

	step(c, &(struct cloud_event){.type = EVENT_RESUME, .was = s->was}, now);
	for (int i = 0; i < STEPS; i++) {
		uint64_t due = cloud_next_deadline(c);
		unsigned node = (unsigned)i % (unsigned)c->n_nodes;

		if (i > STEPS / 2 && c->nodes[node].pid)
			step(c,
				&(struct cloud_event){
					.type = EVENT_EXITED, .node = node, .exit = &end},
				now);
		if (due == UINT64_MAX)
			continue;
		now = MAX(now, due);
		step(c, &(struct cloud_event){.type = EVENT_TICK}, now);
	}
}

static void check_same_memory(const struct supervised *a, const struct supervised *b)
{
	fuzz_check(a->memory == MEMORY_WHOLE && b->memory == MEMORY_WHOLE);
	fuzz_check(a->cloud->generation == b->cloud->generation);
	fuzz_check(a->cloud->wanted == b->cloud->wanted && a->was == b->was);
	fuzz_check(streq_null(a->cloud->h2o_name, b->cloud->h2o_name));
	fuzz_check(streq_null(a->recovery_dir, b->recovery_dir));
	for (size_t i = 0; i < a->cloud->n_nodes; i++) {
		fuzz_check(a->cloud->nodes[i].pid == b->cloud->nodes[i].pid);
		fuzz_check(a->cloud->nodes[i].state == b->cloud->nodes[i].state);
		fuzz_check(a->members[i].last_pid == b->members[i].last_pid);
		fuzz_check(a->members[i].log_start == b->members[i].log_start);
	}
}

/* By which a daemon that has lost its own knows itself again. */
static void check_fleet_id(void)
{
	char id[17] = "";

	if (state_fleet_id(fuzz_dir(), id))
		fuzz_check(strlen(id) == 16 && strspn(id, "0123456789abcdef") == 16);
}

/* What is saved of it is read as the same. */
static void save_and_load(struct supervised *s)
{
	struct fleet f = *s->fleet;
	struct supervised again = {0}, *clouds = &again;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	enum cloud_state state = s->cloud->state;

	s->cloud->state = s->was; /* it rests until it is told to go on; what it was is kept */
	fuzz_check_text(state_save(s, false, &e) == 0, err_msg(&e));
	s->cloud->state = state;
	f.clouds = &clouds;
	load_cloud(&f, &again);
	check_same_memory(s, &again);
	drop_cloud(&f, &again);
}

static void state(const struct fuzz_input *in)
{
	struct supervised s = {0}, *clouds = &s;
	struct fleet f = {.loop = &loop, .id = FLEET_ID, .clouds = &clouds, .n = 1};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int may;

	fuzz_check(uv_loop_init(&loop) == 0);
	f.awake = awake_new(&loop);
	write_state(in);
	f.conf = new_conf();
	check_fleet_id();
	may = fleet_check_state(f.conf, &e);
	fuzz_check(may == 0 || e.msg);
	conf_free(f.conf);
	load_cloud(&f, &s);
	fuzz_check(may == 0 || s.memory != MEMORY_WHOLE);
	if (s.memory == MEMORY_WHOLE) {
		if (!s.pending) /* what it was launched with decides, not these files */
			save_and_load(&s);
		resume(&s);
	}
	drop_cloud(&f, &s);
	awake_free(f.awake);
	uv_run(&loop, UV_RUN_DEFAULT);
	fuzz_check(uv_loop_close(&loop) == 0);
}

/* --- a created cloud ---------------------------------------------------------------------- */

static const char main_conf[] = "[cloud prod]\nnodes = 2\nport = 54321\n";

static void load_created(bool strict)
{
	_cleanup_(conf_errors_free) struct conf_errors errors = {0};
	_cleanup_(conf_freep) struct conf *c = NULL;
	_cleanup_free_ char *file = xasprintf("%s/main.conf", fuzz_dir());
	struct conf_source from = {.file = file, .state_dir = fuzz_dir(), .strict = strict};
	int r = conf_load_all(&from, &c, &errors);

	fuzz_check_text(r == 0 || (strict && r == -EINVAL && errors.list.n),
		errors.list.n ? errors.list.v[0] : "");
	if (r < 0)
		return;
	/* It is a cloud, or set aside with a reason; the configured one is there in any case. */
	fuzz_check(c->n_clouds + c->n_aside == 2 && streq(c->clouds[0]->name, "prod"));
	fuzz_check(c->n_aside == 0 || (c->aside[0].why && *c->aside[0].why));
	if (c->n_clouds == 2)
		fuzz_check(c->clouds[1]->created && streq(c->clouds[1]->name, "dev") &&
			   cloud_conf_check(c->clouds[1], 54321, NULL) == 0);
}

static void created(const struct fuzz_input *in)
{
	fuzz_write("created/dev.conf", in->at, in->n);
	fuzz_write("main.conf", main_conf, strlen(main_conf));
	load_created(false);
	load_created(true);
}

/* --- the journal -------------------------------------------------------------------------- */

/* Of each line that is given out: the position is right, and numbers only grow. */
static void check_lines(const struct journal *j, const char *text, uint64_t *last)
{
	_cleanup_free_ char *head = xasprintf("{\"epoch\":\"%s\",\"seq\":", journal_epoch(j));

	for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
		uint64_t seq;

		fuzz_check_text(strchr(line, '\n') && has_prefix(line, head), line);
		seq = strtoull(line + strlen(head), NULL, 10);
		fuzz_check_text(
			seq > *last || (!*last && strstr(line, "\"type\":\"epoch\"")), line);
		*last = seq;
	}
}

static void read_all(struct journal *j, const char *since, const char *cloud)
{
	_cleanup_(strbuf_free) struct strbuf out = STRBUF_NULL;
	struct journal_cursor c;
	uint64_t last = 0;

	if (journal_seek(j, since, &c) < 0)
		return;
	c.cloud = cloud;
	for (int i = 0; journal_read(j, &c, &out, 1000); i++) {
		fuzz_check(i < 10000);
		check_lines(j, strbuf_str(&out), &last);
		strbuf_reset(&out);
	}
	check_lines(j, strbuf_str(&out), &last);
	fuzz_check(c.next == journal_last(j) + 1);
}

/* The second is longer than a line may be, and than the file: it takes the place of the old one. */
static uint64_t append_some(struct journal *j)
{
	_cleanup_free_ char *text = xmalloc(JOURNAL_MAX_LINE + 1);
	uint64_t last = journal_last(j);

	memset(text, 'x', JOURNAL_MAX_LINE);
	text[JOURNAL_MAX_LINE] = '\0';
	for (int i = 0; i < APPENDED; i++) {
		journal_append(j, json_pack("{s:s, s:s, s:s}", "type", "fuzz", "cloud", "dev",
					  i == 1 ? "details" : "message", i == 1 ? text : "y"));
		fuzz_check(journal_last(j) == ++last);
		read_all(j, NULL, "dev");
	}
	return last;
}

/* Both files, the last number, and from where it is read, each behind a line "--". */
static void journal(struct fuzz_input *in)
{
	_cleanup_free_ char *dir = xasprintf("%s/events", fuzz_dir());
	static const char *const files[] = {
		"events/current.ndjson", "events/old.ndjson", "events/issued"};
	_cleanup_free_ char *since = NULL;
	struct journal *j;
	uint64_t last;
	char epoch[JOURNAL_EPOCH_LEN + 1];

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		size_t len;
		_cleanup_free_ char *part = fuzz_part(in, &len);

		fuzz_write(files[i], part, len);
	}
	since = fuzz_part(in, NULL);
	j = journal_open(dir, 4000);
	read_all(j, NULL, NULL);
	read_all(j, since, NULL);
	read_all(j, NULL, "dev");
	last = journal_last(j);
	if (last < INT64_MAX - APPENDED)
		last = append_some(j);
	snprintf(epoch, sizeof(epoch), "%s", journal_epoch(j));
	journal_close(j);
	j = journal_open(dir, 4000);
	if (last < INT64_MAX - APPENDED && last)
		fuzz_check(streq(epoch, journal_epoch(j)) && journal_last(j) == last);
	journal_close(j);
}

/* --- an incident -------------------------------------------------------------------------- */

#define INCIDENT "20261122-224015-123"

static void set_long(json_t *incident, const char *key)
{
	_cleanup_free_ char *text = xmalloc(INCIDENT_MAX_BYTES + 2);

	memset(text, 'x', INCIDENT_MAX_BYTES);
	memcpy(text + INCIDENT_MAX_BYTES - 1, "\xc3\xbc", 3);
	json_object_set_new(incident, key, json_string(text));
}

static void incident(const struct fuzz_input *in)
{
	_cleanup_free_ char *dir = xasprintf("%s/incidents", fuzz_dir());
	struct incidents *list;
	json_t *all = NULL;
	char id[INCIDENT_ID_LEN + 1];

	fuzz_write("incidents/" INCIDENT ".json", in->at, in->n);
	list = incidents_open(dir, 10, 1 << 20);
	fuzz_check(incidents_count(list) <= 1);
	if (incidents_count(list)) {
		const json_t *summary = incidents_summary(list, 0);
		int r = incidents_read(list, INCIDENT, &all, NULL);

		fuzz_check(json_object_size(summary) >= 12);
		fuzz_check(r == 0 || r == -EBADMSG || (r == -EFBIG && in->n > INCIDENT_MAX_BYTES));
		incidents_new_id(list, 0, id);
		fuzz_check(strcmp(id, INCIDENT) > 0); /* ids are never given out twice */
	}
	if (all) {
		json_t *again = NULL;

		/* The longest text is cut. */
		if (in->n % 4 == 1)
			set_long(all, "log_tail");
		json_object_set_new(all, "id", json_string(INCIDENT));
		fuzz_check(incidents_put(list, all, NULL) == 0);
		fuzz_check(incidents_read(list, INCIDENT, &again, NULL) == 0);
		fuzz_check(streq_null(json_string_value(json_object_get(again, "id")), INCIDENT));
		json_decref(again);
	}
	json_decref(all);
	fuzz_check(incidents_count(list) == 0 || incidents_remove(list, INCIDENT, NULL) == 0);
	incidents_close(list);
}

/* --- the boot cache ----------------------------------------------------------------------- */

/* The verdict of an archive; its identity, which no fuzzer could guess, is made right where the
 * input says so by having none. */
static void boot(const struct fuzz_input *in)
{
	_cleanup_free_ char *jar = xasprintf("%s/h2o.jar", fuzz_dir());
	_cleanup_free_ char *java = xasprintf("%s/jvm/bin/java", fuzz_dir()), *path = NULL;
	_cleanup_free_ char *dir = NULL;
	struct boot_runtime rt = {.java = java, .java_major = 17, .jar = jar};
	_cleanup_(boot_identity_clear) struct boot_identity id = {0};
	_cleanup_(boot_found_clear) struct boot_found found = {0};
	_cleanup_(strv_free) struct strv argv = STRV_NULL;
	json_t *verdict = json_loadb((const char *)in->at, in->n, JSON_ALLOW_NUL, NULL);

	fuzz_write("h2o.jar", "jar", 3);
	fuzz_write("jvm/bin/java", "java", 4);
	fuzz_check(boot_identity_of(&rt, &id, NULL) == 0);
	path = xasprintf("boot/%s/" BOOT_VERDICT, id.key);
	dir = xasprintf("%s/boot/%s", fuzz_dir(), id.key);
	if (json_is_object(verdict))
		set_missing(verdict, "identity", boot_identity_json(&id));
	if (json_is_object(verdict))
		write_json(path, verdict);
	else
		fuzz_write(path, in->at, in->n);
	json_decref(verdict);
	free(path);
	path = xasprintf("boot/%s/classes.jsa", id.key);
	fuzz_write(path, "archive", 7);
	fuzz_write("boot/classes.jsa", "archive", 7); /* another's */
	fuzz_check(bootcache_find(fuzz_dir(), &rt, &found, NULL) == 0);
	fuzz_check((found.verdict == BOOT_TRUSTED) == (found.archive != NULL));
	/* Nothing but what lies in the entry, not its parent, either. */
	if (found.archive)
		fuzz_check_text(has_prefix(found.archive, dir) &&
					!strchr(found.archive + strlen(dir) + 1, '/') &&
					access(found.archive, F_OK) == 0,
			found.archive);
	bootcache_add_args(&found, NULL, &argv);
	fuzz_empty_dir();
}

void fuzz_begin(void)
{
	setenv("H2OFLEET_SYSTEM_CACHE_DIR", "/nonexistent", 1);
	log_set_level((enum log_level)0);
	umask(022);
	fuzz_dir();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};

	switch (fuzz_byte(&in)) {
	case 'c':
		created(&in);
		break;
	case 'j':
		journal(&in);
		break;
	case 'i':
		incident(&in);
		break;
	case 'b':
		boot(&in);
		break;
	default:
		state(&in);
	}
	return 0;
}

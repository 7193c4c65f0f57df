#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "core/bootbuilder.h"
#include "core/internal.h"
#include "drv/machine.h"
#include "drv/runtime.h"

void runtime_clear(struct runtime *r)
{
	free(r->java);
	free(r->java_version);
	free(r->jar);
	free(r->h2o_version);
	*r = (struct runtime){0};
}

/* ---- preparing a generation: runtime, directories, ports ---- */

static void prepare_failed(struct supervised *s, bool permanent, const char *sentence)
{
	supervised_feed(
		s, &(struct cloud_event){
			   .type = EVENT_PREPARE_FAILED, .flag = permanent, .text = sentence});
}

/* For lack of what may come back: said once, and listed until a launch succeeds. */
static void say_shortage(struct supervised *s, int r, const char *sentence)
{
	_cleanup_free_ char *more = NULL;

	if (!trouble_is_shortage(r))
		return;
	more = xasprintf("%s%s", sentence, trouble_advice(r));
	trouble_set(s->fleet, TROUBLE_LAUNCH, s->cloud->conf->name, more);
}

/* Below a user's ice_root somebody else may have made our directory first, or a link in its place.
 */
static int check_ours(const char *path, struct err *e)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return err_set_errno(e, -errno, "cannot look at %s", path);
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
		return err_set(e, -EPERM,
			"%s is not a directory of the daemon's user; remove it or set another "
			"ice_root",
			path);
	return 0;
}

static int make_ice_dir(const struct supervised *s, const struct member *m, struct err *e)
{
	_cleanup_free_ char *parent =
		xstrndup(m->ice_dir, (size_t)(strrchr(m->ice_dir, '/') - m->ice_dir));
	int r = file_make_way(m->ice_dir, 0750, e);

	if (r < 0 && s->cloud->conf->ice_root)
		return err_wrap(e, "ice_root");
	if (r == 0)
		r = check_ours(parent, e);
	return r < 0 ? r : check_ours(m->ice_dir, e);
}

static int make_dirs(struct supervised *s, struct err *e)
{
	int r = file_mkdirs(s->dir, 0750, e);

	if (r < 0)
		return err_wrap(e, "state_dir");
	r = file_own_dir(s->log_dir, 0750, e);
	if (r < 0)
		return err_wrap(e, "log_dir");
	for (unsigned i = 0; r == 0 && i < s->cloud->n_nodes; i++) {
		r = make_ice_dir(s, &s->members[i], e);
		if (r == 0)
			r = file_empty_dir(s->members[i].tmp_dir, e);
		if (r == 0)
			r = file_mkdirs(s->members[i].tmp_dir, 0700, e);
	}
	return r;
}

const char *launch_api_address(const struct supervised *s)
{
	return plan_binds_to_localhost(s->cloud->conf) ? MEMBER_ADDR : "0.0.0.0";
}

static int taken_later(uint16_t port, struct err *e)
{
	_cleanup_free_ char *who = port_holder_sentence(port);

	return err_set(e, -EADDRINUSE, "%s; the cloud keeps its ports and waits for it", who);
}

/* Again the ports of the last generation, which are held as a rule. All its members are dead: who
 * listens there now (a hold does not hinder a server that sets SO_REUSEADDR) is a thief. */
static int hold_same(struct supervised *s, struct err *e)
{
	uint16_t taken;

	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		uint16_t api = s->cloud->nodes[i].api_port;
		int r = 0;

		if (!port_is_open_to_jvm(launch_api_address(s), api))
			return taken_later(api, e);
		if (!port_is_open_to_jvm(MEMBER_ADDR, (uint16_t)(api + 1)))
			return taken_later((uint16_t)(api + 1), e);
		if (s->holds[i].api)
			r = port_pair_complete(
				launch_api_address(s), MEMBER_ADDR, &s->holds[i], &taken);
		else
			r = port_pair_hold(
				launch_api_address(s), MEMBER_ADDR, api, &s->holds[i], &taken);
		if (r == -EADDRINUSE)
			return taken_later(taken, e);
		if (r < 0)
			return err_set_errno(e, r, "cannot hold port %u", api);
	}
	return 0;
}

static void say_moved(const struct supervised *s, uint16_t from, uint16_t to)
{
	/* Looking for others takes ms; one of ours has it as a rule. */
	_cleanup_free_ char *who =
		port_is_claimed(from)
			? xasprintf("port %u belongs to another cloud of this fleet", from)
			: port_holder_sentence(from);

	log_notice("cloud %s: its ports are %u and up instead of %u: %s", s->cloud->conf->name, to,
		from, who);
}

/* `exact`: these very ports; else upwards from the first, past taken ones. */
static int hold_members(struct supervised *s, bool exact, unsigned first, struct err *e)
{
	unsigned port = first, i = 0;
	uint16_t taken;

	while (i < s->cloud->n_nodes) {
		int r = -EADDRNOTAVAIL;

		if (port < 65535)
			r = port_pair_hold(launch_api_address(s), MEMBER_ADDR, (uint16_t)port,
				&s->holds[i], &taken);
		if (r == 0) {
			i++;
		} else if (r == -EADDRINUSE && exact) {
			_cleanup_free_ char *who = port_holder_sentence(taken);

			return err_set(e, r,
				"%s; free it, or let the cloud move on with port = %u+", who,
				first);
		} else if (r == -EADDRNOTAVAIL) {
			return err_set(e, r, "no %zu free pairs of ports from %u up",
				s->cloud->n_nodes, first);
		} else if (r != -EADDRINUSE) {
			return err_set_errno(
				e, r, "cannot hold port %u on %s", port, launch_api_address(s));
		}
		port += 2;
	}
	return 0;
}

/* The gate's first, the members' above it. */
static int hold_new(struct supervised *s, bool exact, uint16_t first, struct err *e)
{
	bool gate = s->cloud->conf->gate_mode != GATE_OFF;
	int r = 0;

	launch_forget_ports(s);
	if (gate)
		r = door_hold(s, first, exact, e);
	if (r == 0)
		r = hold_members(s, exact, gate ? s->door.port.port + 1u : first, e);
	if (r == 0 && (gate ? s->door.port.port : s->holds[0].api) != first)
		say_moved(s, first, gate ? s->door.port.port : s->holds[0].api);
	return r;
}

static int hold_ports(struct supervised *s, struct err *e)
{
	const struct cloud_conf *conf = s->cloud->conf;
	uint16_t first = cloud_conf_first_port(conf);
	int r;

	if (s->cloud->ports_planned)
		return hold_same(s, e);
	r = hold_new(s, conf->port.exact, first, e);
	if (r < 0)
		launch_forget_ports(s);
	return r;
}

static void feed_prepared(struct supervised *s)
{
	_cleanup_free_ uint16_t *ports = xcalloc(s->cloud->n_nodes, sizeof(*ports));

	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		ports[i] = s->holds[i].api;
	supervised_feed(s, &(struct cloud_event){.type = EVENT_PREPARED,
				   .ports = ports,
				   .endpoint_port = s->door.port.port});
}

static void warn_of_memory(struct supervised *s, uint64_t heap, uint64_t there)
{
	_cleanup_free_ char *all = text_human_size(heap * s->cloud->n_nodes);
	_cleanup_free_ char *has = text_human_size(there);

	if (heap * s->cloud->n_nodes > there)
		log_warning(
			"cloud %s: its heaps come to %s, the machine has %s: the kernel may kill "
			"nodes; lower max_mem_size or nodes",
			s->cloud->conf->name, all, has);
}

/* Whether a failure can heal by itself: a full disk and a taken port of a running cloud can. */
static bool is_permanent(const struct supervised *s, int r)
{
	if (s->cloud->ever_ready) /* what worked may work again */
		return false;
	if (r == -EADDRINUSE) /* a node of the builder's may have it, which is being ended */
		return !s->cloud->ports_planned && !bootbuilder_is_at_work(s->fleet);
	return r != -EBUSY && !trouble_is_shortage(r);
}

/* The version of Java is known. */
static void prepare_rest(struct supervised *s)
{
	const struct cloud_conf *conf = s->cloud->conf;
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct runtime *rt = &s->runtime;
	struct machine_facts machine = {machine_memory(), machine_cores()};
	uint64_t xmx = 0, xms = 0;
	int r;

	r = reload_check_others(s, &e);
	if (r == 0)
		r = runtime_find_jar(conf->jar_path, NULL, &rt->jar, &e);
	if (r == 0 && runtime_jar_version(rt->jar, &rt->h2o_version, NULL) < 0)
		rt->h2o_version = NULL; /* it only makes sentences clearer */
	if (r == 0)
		r = runtime_check_java(rt->java_major, rt->java, rt->h2o_version,
			conf->allow_unsupported_java, &e);
	if (r == 0)
		r = plan_memory(conf, &machine, &xmx, &xms, &e);
	if (r == 0)
		r = make_dirs(s, &e);
	if (r == 0)
		r = logs_check_target(s, &e);
	if (r == 0) {
		boot_choose(s);
		warn_of_memory(s, xmx, machine.mem_bytes);
		oom_sample(s->fleet);
		r = recovery_choose_dir(s, xmx, &e);
	}
	if (r == 0)
		r = hold_ports(s, &e);
	if (r == 0) /* can a launch be recorded? */
		r = state_save(s, false, &e);
	if (r < 0) {
		say_shortage(s, r, err_msg(&e));
		prepare_failed(s, is_permanent(s, r), err_msg(&e));
	} else {
		feed_prepared(s);
	}
}

void launch_java_is_known(struct supervised *s, int major, const char *version)
{
	s->runtime.java_major = major;
	replace_str(&s->runtime.java_version, version);
	s->work.prepare = true;
	work_soon(s);
}

void launch_java_failed(struct supervised *s, int r, const char *sentence)
{
	say_shortage(s, r, sentence);
	prepare_failed(s, is_permanent(s, r), sentence);
}

static bool waits_for_strays(struct supervised *s)
{
	s->awaits_strays = s->fleet->strays != NULL;
	if (s->awaits_strays)
		log_notice("cloud %s: starts once the processes of an earlier daemon have ended",
			s->cloud->conf->name);
	return s->awaits_strays;
}

void launch_prepare(struct supervised *s)
{
	if (reload_defers_launch(s) || waits_for_strays(s))
		return;
	runtime_clear(&s->runtime);
	s->work.prepare = true;
	work_soon(s);
}

/* Without a release file beside it: asks it, without holding up the others. */
static void ask_java(struct supervised *s)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct runtime *rt = &s->runtime;
	int r = runtime_find_java(s->cloud->conf->java, NULL, &rt->java, &e);

	if (r < 0) {
		launch_java_failed(s, r, err_msg(&e));
		return;
	}
	if (runtime_java_release(rt->java, &rt->java_major, &rt->java_version) == 0) {
		prepare_rest(s);
		return;
	}
	r = java_ask(s, &e);
	if (r < 0)
		launch_java_failed(s, r, err_msg(&e));
}

void launch_prepare_now(struct supervised *s)
{
	s->work.prepare = false;
	if (s->cloud->state != CLOUD_STARTING)
		prepare_failed(s, false, "stopped meanwhile");
	else if (s->runtime.java_major)
		prepare_rest(s);
	else
		ask_java(s);
}

void launch_cancel_probe(struct supervised *s)
{
	if (!s->awaits_java)
		return;
	java_forget(s);
	prepare_failed(s, false, "stopped while Java was asked for its version");
}

void launch_go_on(struct supervised *s)
{
	if (!s->awaits_strays)
		return;
	s->awaits_strays = false;
	if (s->cloud->state == CLOUD_STARTING)
		launch_prepare(s);
	else
		prepare_failed(s, false, "stopped meanwhile");
}

void launch_forget_ports(struct supervised *s)
{
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		port_pair_release(&s->holds[i]);
}

/* ---- launching a member ---- */

char *launch_token(const struct supervised *s, unsigned node)
{
	return xasprintf("%s=%s/%s/%u/%" PRIu64, TOKEN_ENV, s->fleet->id, s->cloud->conf->name,
		node, s->cloud->generation);
}

static int spawn_member(struct supervised *s, struct member *m, int output, struct err *e)
{
	_cleanup_free_ char *token = launch_token(s, m->index);
	_cleanup_(strv_free) struct strv argv = STRV_NULL, env = STRV_NULL, boot = STRV_NULL;
	struct machine_facts machine = {machine_memory(), machine_cores()};
	struct launch_place place = {
		.java = s->runtime.java,
		.java_major = s->runtime.java_major,
		.jar = s->runtime.jar,
		.ice_root = m->ice_dir,
		.tmp_dir = m->tmp_dir,
		.log_dir = s->log_dir,
		.flatfile = m->flatfile,
		.recovery_dir = s->recovery_dir,
		.token = token + strlen(TOKEN_ENV) + 1,
		.boot = &boot,
	};
	struct spawn_request rq = {.output_fd = output, .cwd = m->ice_dir};
	int r;

	plan_env(s->cloud, environ, &place, &env);
	boot_add_args(s, &env, &boot);
	r = plan_argv(s->cloud, m->index, &place, &machine, &argv, e);
	if (r < 0)
		return r;
	rq.argv = argv.v;
	rq.env = env.v;
	return proc_spawn(s->fleet->loop, &rq, exits_report, m, &m->proc, e);
}

static void launch_failed(struct supervised *s, unsigned node, const char *sentence)
{
	supervised_feed(s,
		&(struct cloud_event){.type = EVENT_LAUNCH_FAILED, .node = node, .text = sentence});
}

/* The intent, before there is a process; that of all members at once. */
static int save_intent(struct supervised *s, struct err *e)
{
	int r = s->work.intent_saved ? 0 : state_save(s, false, e);

	s->work.intent_saved = r == 0;
	return r;
}

static void launch(struct supervised *s, unsigned node)
{
	struct member *m = &s->members[node];
	_cleanup_(err_clear) struct err e = ERR_NULL;
	_cleanup_close_ int output = -1;
	int r;

	r = save_intent(s, &e);
	if (r == 0)
		r = flatfile_make(m, &e);
	if (r == 0)
		r = output = logs_begin(m, &e);
	if (r >= 0)
		r = spawn_member(s, m, output, &e);
	if (r < 0) {
		say_shortage(s, r, err_msg(&e));
		launch_failed(s, node, err_msg(&e));
		return;
	}
	m->last_pid = proc_pid(m->proc);
	m->unreleased = true;
	log_info("cloud %s: node %u: pid %d, port %u", s->cloud->conf->name, node, (int)m->last_pid,
		s->cloud->nodes[node].api_port);
	supervised_feed(s, &(struct cloud_event){.type = EVENT_LAUNCHED,
				   .node = node,
				   .pid = m->last_pid,
				   .start_ticks = proc_start_ticks(m->proc)});
}

void launch_node(struct supervised *s, unsigned node)
{
	s->members[node].awaits_launch = true;
	s->work.intent_saved &= s->work.launches > 0;
	s->work.launches++;
	work_soon(s);
}

void launch_next_now(struct supervised *s)
{
	unsigned node = (unsigned)s->cloud->n_nodes - 1; /* in the model's order */

	while (!s->members[node].awaits_launch)
		node--;
	s->members[node].awaits_launch = false;
	s->work.launches--;
	if (s->cloud->state == CLOUD_STARTING)
		launch(s, node);
	else
		launch_failed(s, node, "stopped meanwhile");
}

bool launch_anyone_waits(const struct supervised *s)
{
	for (unsigned i = 0; i < s->cloud->n_nodes; i++)
		if (s->members[i].unreleased)
			return true;
	return false;
}

/* Once all are forked those whose identity is on disk may execute, as soon as they are in their
 * control group. Where it could not be written, none may. */
void launch_release(struct supervised *s)
{
	if (s->work.launches || (!launch_anyone_waits(s) && !s->cgroup.job))
		return;
	if (!s->cloud->dirty && cgroups_place(s))
		return;
	for (unsigned i = 0; i < s->cloud->n_nodes; i++) {
		struct member *m = &s->members[i];

		if (!m->unreleased || !m->proc)
			continue;
		m->unreleased = false;
		if (!s->cloud->dirty) {
			proc_release(m->proc);
			continue;
		}
		proc_free(TAKE_PTR(m->proc)); /* sees the end of its pipe and exits */
		supervised_feed(s, &(struct cloud_event){.type = EVENT_LAUNCH_FAILED,
					   .node = i,
					   .text = "its identity could not be written to the state "
						   "directory; is the disk full?"});
	}
}

#include "control.h"

#include <errno.h>
#include <sys/socket.h>

#include "api/stream.h"
#include "base/clock.h"
#include "base/log.h"
#include "fuzz.h"
#include "settle.h"
#include "waits.h"

#define TURNS     20000
#define MAX_READ  (8u << 20)
#define INCIDENT  "20261122-224015-123"
#define CLOSE     "\r\nConnection: close\r\n"
#define NO_STORE  "Cache-Control: no-store"
#define MAX_HEADS 64

static uv_loop_t loop;
static struct api *api;
static struct fleet *fleet;

struct fleet *control_fleet(void)
{
	return fleet;
}

/* --- the fleet ---------------------------------------------------------------------------- */

static void on_shutdown(bool at_once, void *arg)
{
	(void)at_once;
	(void)arg;
}

static int on_reexec(bool begin, struct reexec_status *out, void *arg)
{
	(void)arg;
	*out = (struct reexec_status){.count = 1, .under_way = begin, .error = "\033[31mno"};
	return 0;
}

static int on_reload(const struct reload_options *opts, struct reload_report *out, void *arg)
{
	(void)opts;
	(void)arg;
	*out = (struct reload_report){0};
	strv_add(&out->errors, "/etc/x.conf:1: \033[31mno");
	return -EINVAL;
}

static void put_incident(struct incidents *list)
{
	json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "id", INCIDENT, "cloud", "dev", "kind",
		"exit", "log_tail", "\033[31m");

	if (!incidents_count(list))
		fuzz_check(incidents_put(list, j, NULL) == 0);
	json_decref(j);
}

static void write_log(void)
{
	static const char log[] = "one\n\033[31mtwo\nthree \xff\n";

	fuzz_write("dev-0.log", log, strlen(log));
}

/* Not as it is when all is well. */
static void set_world(struct fleet *f, struct cloud *dev, uint8_t world)
{
	static const int refusals[] = {
		0, -EPERM, -EEXIST, -EBUSY, -EDQUOT, -ESHUTDOWN, -EINVAL, -EIO};

	f->refusal = f->cancel_result = refusals[world & WORLD_REFUSAL];
	f->jobs_known = !(world & WORLD_NO_JOBS);
	f->ending = world & WORLD_ENDS;
	if (!(world & WORLD_FAILED))
		return;
	dev->state = CLOUD_FAILED;
	dev->wanted = WANTED_STOPPED;
	replace_str(&dev->reason, "node 0 \033[31mended");
	f->usage_known = f->gated = f->booted = f->pressure_known = true;
	snprintf(f->trouble, sizeof(f->trouble), "no \033room");
}

static void fill(struct fleet *f, uint8_t world)
{
	static json_t *jobs;
	struct cloud *dev = fake_fleet_add(f, "dev", 3), *mine;

	fake_fleet_add(f, "other", 1);
	mine = fake_fleet_add(f, "mine", 1);
	((struct cloud_conf *)mine->conf)->created = true;
	dev->generation = 3;
	dev->wanted = WANTED_RUNNING;
	dev->state = CLOUD_READY;
	f->log_dir = fuzz_dir();
	f->jobs_known = true;
	if (!jobs)
		jobs = json_pack("[{s:s, s:b}]", "id", "$0301_a", "running", 1);
	f->jobs = (struct fleet_jobs){.list = jobs, .total = 1, .locked = true};
	put_incident(f->incidents);
	set_world(f, dev, world);
}

/* As the first one was; journal, incidents and observer stay. */
static void renew_fleet(uint8_t world)
{
	struct fleet *old = fleet;

	fleet = fake_fleet_new();
	fleet->journal = TAKE_PTR(old->journal);
	fleet->incidents = TAKE_PTR(old->incidents);
	fleet_observe(fleet, old->observer, old->observer_arg);
	fake_fleet_free(old);
	api->fleet = api->acceptor.fleet = fleet;
	fill(fleet, world);
}

void control_begin(void)
{
	_cleanup_free_ char *events = xasprintf("%s/events", fuzz_dir());
	_cleanup_free_ char *incidents = xasprintf("%s/incidents", fuzz_dir());
	_cleanup_free_ char *path = xasprintf("%s/control.sock", fuzz_dir());

	log_set_level((enum log_level)0);
	write_log();
	fuzz_check(uv_loop_init(&loop) == 0);
	fleet = fake_fleet_new();
	fleet->journal = journal_open(events, 1 << 14);
	fleet->incidents = incidents_open(incidents, 10, 1 << 20);
	for (int i = 0; i < 3; i++)
		journal_append(fleet->journal,
			json_pack("{s:s, s:s}", "type", "fuzz", "cloud", i ? "dev" : "other"));
	fuzz_check(api_new(&loop, fleet, path, &api, NULL) == 0);
	api_set_shutdown(api, on_shutdown, NULL);
	api_set_reexec(api, on_reexec, NULL);
	api_set_reload(api, on_reload, NULL);
}

/* --- answers ------------------------------------------------------------------------------ */

/* Of one answer. */
struct head {
	int status;
	size_t len; /* with the empty line */
	const char *text;
	char *type;     /* owned; "": none */
	int64_t length; /* of the body; -1: not said */
	bool chunked;
};

/* The value of a header line in `text`; owned by the caller; NULL: none. */
static char *header(const char *text, size_t len, const char *name)
{
	size_t n = strlen(name);

	for (const char *s = text; s < text + len;) {
		size_t line = (size_t)((char *)memchr(s, '\n', (size_t)(text + len - s)) - s);

		if (line > n + 2 && strncasecmp(s, name, n) == 0 && s[n] == ':')
			return xstrndup(s + n + 2, line - n - 3); /* ": ", "\r" */
		s += line + 1;
	}
	return NULL;
}

/* Each line is a name and a value, without control characters; the first one the status. */
static void check_head(const struct head *h)
{
	const char *end = h->text + h->len - 2;

	for (const char *s = h->text; s < end;) {
		const char *nl = memchr(s, '\n', (size_t)(end - s));
		size_t n;

		fuzz_check(nl);
		n = (size_t)(nl - s);
		fuzz_check(n && s[--n] == '\r');
		fuzz_check_harmless(s, n);
		fuzz_check(!memchr(s, '\t', n) && !memchr(s, '\r', n));
		fuzz_check(s == h->text || memmem(s, n, ": ", 2) || (n && s[n - 1] == ':'));
		s = nl + 1;
	}
}

/* False: it is not all there. */
static bool read_head(const char *s, size_t n, struct head *h)
{
	const char *end = memmem(s, n, "\r\n\r\n", 4);
	_cleanup_free_ char *length = NULL, *coding = NULL;

	*h = (struct head){.length = -1, .text = s};
	if (!end)
		return false;
	h->len = (size_t)(end + 4 - s);
	fuzz_check(sscanf(s, "HTTP/1.%*1[01] %3d ", &h->status) == 1);
	fuzz_check(h->status >= 100 && h->status < 600);
	check_head(h);
	length = header(s, h->len, "Content-Length");
	coding = header(s, h->len, "Transfer-Encoding");
	h->type = header(s, h->len, "Content-Type");
	if (!h->type)
		h->type = xstrdup("");
	if (length)
		h->length = strtoll(length, NULL, 10);
	h->chunked = coding && streq(coding, "chunked");
	return true;
}

static void check_problem(const json_t *j, int status)
{
	const char *type = json_string_value(json_object_get(j, "type"));

	fuzz_check(type && has_prefix(type, "urn:h2ofleet:problem:"));
	fuzz_check(json_is_string(json_object_get(j, "title")));
	fuzz_check(json_is_string(json_object_get(j, "detail")));
	fuzz_check(json_integer_value(json_object_get(j, "status")) == status && status >= 400);
}

/* All of it. */
static void check_body(const struct head *h, const char *s, size_t n)
{
	json_auto_t *j = NULL;

	/* What libmicrohttpd says by itself of a request that it cannot make out. */
	if (h->status >= 400 && !memmem(h->text, h->len, NO_STORE, strlen(NO_STORE)))
		return;
	fuzz_check(memmem(h->text, h->len, NO_STORE, strlen(NO_STORE)));
	if (has_prefix(h->type, "text/plain"))
		return;
	j = json_loadb(s, n, 0, NULL);
	fuzz_check_text(json_is_object(j), xstrndup(s, n));
	if (streq(h->type, "application/problem+json"))
		check_problem(j, h->status);
	else
		fuzz_check_text(streq(h->type, "application/json") && h->status < 300, h->type);
}

/* Bytes of a body in chunks; 0: it has not ended. */
static size_t chunks_length(const char *s, size_t n)
{
	size_t at = 0;

	for (;;) {
		const char *nl = memmem(s + at, n - at, "\r\n", 2);
		char *end;
		size_t size;

		if (!nl)
			return 0;
		size = strtoul(s + at, &end, 16);
		fuzz_check(end == nl);
		at = (size_t)(nl + 2 - s) + size + 2;
		if (at > n)
			return 0;
		fuzz_check(s[at - 2] == '\r' && s[at - 1] == '\n');
		if (!size)
			return at;
	}
}

/* `heads`: some of the requests may be HEAD, so nobody can tell from here where the bodies are. */
static int check_answers(const char *s, size_t n, bool heads)
{
	int first = 0;

	for (size_t at = 0; at < n;) {
		struct head h;
		size_t left, body;

		if (!read_head(s + at, n - at, &h))
			return first;
		at += h.len;
		left = n - at;
		body = h.chunked      ? chunks_length(s + at, left)
		       : h.length > 0 ? (size_t)h.length
				      : 0;
		first = first ? first : h.status >= 200 ? h.status : 0;
		if (h.status >= 200 && h.status < 400 && !h.chunked && h.length < 0) {
			fuzz_check(memmem(h.text, h.len, CLOSE, strlen(CLOSE))); /* HTTP/1.0 */
			free(h.type);
			return first;
		}
		if (!heads && h.status >= 200 && !h.chunked && body <= left)
			check_body(&h, s + at, body);
		free(h.type);
		if (heads || body > left || (h.chunked && !body))
			return first;
		at += body;
	}
	return first;
}

/* --- talking ------------------------------------------------------------------------------ */

static void take(int fd, struct strbuf *out)
{
	static char buf[65536];
	ssize_t n;

	settle(&loop);
	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		if (out->len < MAX_READ)
			strbuf_add(out, buf, (size_t)n);
		settle(&loop);
	}
}

static void send_all(int fd, const char *data, size_t len, size_t step, struct strbuf *out)
{
	while (len) {
		ssize_t n =
			send(fd, data, step ? MIN(step, len) : len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return; /* it has heard enough */
		if (n > 0) {
			data += n;
			len -= (size_t)n;
		}
		take(fd, out);
	}
}

static void look_at_streams(void)
{
	api->stream_look_ms = 1;
	streams_on_timer(&api->stream_timer);
}

/* Those that wait look at once whether their client is there still. */
static void hang_up(int fd)
{
	close(fd);
	for (int i = 0; api->peers.list; i++) {
		fuzz_check(i < TURNS);
		if (api->waiters)
			waiters_on_timer(&api->wait_timer);
		look_at_streams();
		settle(&loop);
	}
	fuzz_check(!api->waiters && !api->streams);
}

/* What others wait for. */
static void happen(int fd, struct strbuf *out)
{
	static const char more[] = "more \033[31m\nand no end";
	_cleanup_free_ char *log = xasprintf("%s/dev-0.log", fuzz_dir());
	FILE *f = fopen(log, "ae");

	fuzz_check(f && fwrite(more, strlen(more), 1, f) == 1 && fclose(f) == 0);
	journal_append(fleet->journal, json_pack("{s:s, s:s}", "type", "fuzz", "cloud", "dev"));
	fake_fleet_set(fleet, fleet->clouds[0], CLOUD_STOPPED, "\033[31m");
	look_at_streams();
	take(fd, out);
}

/* Of those that have sent nothing, wait for a cloud, or follow; each has its own patience. */
static void pass_time(int fd, struct strbuf *out)
{
	for (int i = 0; i < 4; i++) {
		waits_pass(40000);
		if (api->waiters)
			waiters_on_timer(&api->wait_timer);
		look_at_streams();
		take(fd, out);
	}
}

int control_talk(const struct control_talk *how, const char *data, size_t len)
{
	_cleanup_(strbuf_free) struct strbuf out = STRBUF_NULL;
	int ends[2], status;

	waits_begin();
	renew_fleet(how->world);
	fuzz_check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
	api->acceptor.taken(ends[0], api->acceptor.arg);
	settle(&loop);
	fuzz_check(api->peers.list);
	if (how->group) { /* as peers_add() would have had it */
		api->peers.list->access = ACCESS_GROUP;
		api->peers.own--;
		api->peers.others++;
	}
	send_all(ends[1], data, len, how->step, &out);
	if (how->half_open)
		shutdown(ends[1], SHUT_WR);
	take(ends[1], &out);
	if (how->world & WORLD_HAPPENS)
		happen(ends[1], &out);
	if (how->world & WORLD_TIME)
		pass_time(ends[1], &out);
	status = check_answers(strbuf_str(&out), out.len, memmem(data, len, "HEAD", 4));
	hang_up(ends[1]);
	waits_end();
	if (how->world & WORLD_HAPPENS)
		write_log();
	return status;
}

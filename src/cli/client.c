#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "drv/http.h"

#define SYSTEM_SOCKET "/run/h2ofleet/control.sock"
/* A log of the largest size that the daemon sends, and then some. */
#define MAX_ANSWER (64u << 20)

/* Of a log: bytes can be added to it without an overflow. */
#define MAX_POSITION (INT64_MAX / 2)

/* How long the next daemon may be in coming, and how often we look for it. */
#define NEXT_DAEMON_MS 5000
#define AGAIN_MS       20

struct client {
	char *socket;
	CURLM *multi;
	struct call *calls;
};

/* The buffer of a call that is on its way. */
struct transfer {
	struct call *call;
	struct strbuf body;
	char error[CURL_ERROR_SIZE];
};

/* --- the socket -------------------------------------------------------------------------- */

static bool answers(const char *path)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	_cleanup_close_ int fd = -1;

	if (strlen(path) >= sizeof(sa.sun_path))
		return false;
	strcpy(sa.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0 || errno == EAGAIN);
}

/* In /tmp anyone may have made a directory of that name. */
static bool is_ours(const char *socket)
{
	_cleanup_free_ char *dir = xstrndup(socket, (size_t)(strrchr(socket, '/') - socket));
	struct stat st;

	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

/* Where everybody may make files the socket may be anybody's who was there before the daemon, or
 * comes while there is none. */
static int check_socket(const char *socket, struct err *e)
{
	_cleanup_free_ char *cwd = *socket == '/' ? NULL : getcwd(NULL, 0);
	_cleanup_free_ char *path = xasprintf("%s/%s", cwd ? cwd : "", socket);

	return file_check_there(path, e);
}

static char *find_socket(const char *given)
{
	const char *env = getenv("H2OFLEET_SOCKET"), *runtime = getenv("XDG_RUNTIME_DIR");
	_cleanup_free_ char *own = NULL;

	if (given)
		return xstrdup(given);
	if (env && *env)
		return xstrdup(env);
	own = runtime && runtime[0] == '/'
		      ? xasprintf("%s/h2ofleet/control.sock", runtime)
		      : xasprintf("/tmp/h2ofleet-%u/control.sock", (unsigned)geteuid());
	return is_ours(own) && answers(own) ? TAKE_PTR(own) : xstrdup(SYSTEM_SOCKET);
}

struct client *client_new(const char *socket)
{
	struct client *c = xcalloc(1, sizeof(*c));

	if (http_begin(false) < 0) /* no TLS on a unix socket; it would take 2 ms */
		no_memory(0);
	c->socket = find_socket(socket);
	c->multi = curl_multi_init();
	if (!c->multi)
		no_memory(0);
	return c;
}

void client_free(struct client *c)
{
	if (!c)
		return;
	while (c->calls)
		call_free(c->calls);
	curl_multi_cleanup(c->multi);
	free(c->socket);
	free(c);
	curl_global_cleanup();
}

void client_freep(struct client **c)
{
	client_free(*c);
}

const char *client_socket(const struct client *c)
{
	return c->socket;
}

/* --- calls ------------------------------------------------------------------------------- */

/* -1: none that there can be. */
static int64_t read_position(const char *s)
{
	int64_t pos = strtoll(s, NULL, 10);

	return pos < 0 || pos > MAX_POSITION ? -1 : pos;
}

/* Line by line; the last is empty. */
static size_t on_head(char *data, size_t size, size_t n, void *arg)
{
	static const char name[] = "h2ofleet-Log-Position:";
	struct call *call = ((struct transfer *)arg)->call;
	_cleanup_free_ char *line = xstrndup(data, size * n);
	long status = 0;

	if (strncasecmp(line, name, strlen(name)) == 0)
		call->log_position = read_position(line + strlen(name));
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	call->answered = status == 200 && line[strspn(line, "\r\n")] == '\0';
	return size * n;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;

	if (t->call->sink && t->call->answered) {
		t->call->sink(data, size * n, t->call->sink_arg);
		return size * n;
	}
	if (t->body.len + size * n > MAX_ANSWER)
		return 0;
	strbuf_add(&t->body, data, size * n);
	return size * n;
}

static struct transfer *transfer_of(CURL *easy)
{
	char *t = NULL;

	curl_easy_getinfo(easy, CURLINFO_PRIVATE, &t);
	return (struct transfer *)(void *)t;
}

/* What who may not use the socket can do. `path`: the socket, or its directory. Owned by the
 * caller. */
static char *how_to_get_in(const char *path)
{
	struct stat st;
	const struct group *g;

	if (stat(path, &st) < 0 || st.st_gid == 0)
		return xstrdup("ask as root");
	g = getgrgid(st.st_gid);
	return g ? xasprintf("ask as root, or join group %s", g->gr_name)
		 : xasprintf("ask as root, or join group %u", (unsigned)st.st_gid);
}

/* "h2ofleetd is not running ...", or why it cannot be reached. */
static void no_daemon(struct call *call)
{
	const char *path = call->client->socket;
	struct stat st;
	int seen = stat(path, &st) < 0 ? errno : 0;
	_cleanup_free_ char *dir = xstrdup(path), *way_in = NULL;
	char *slash = strrchr(dir, '/');

	if (slash)
		slash[slash == dir] = '\0';
	if (seen == EACCES || (seen == 0 && access(path, W_OK) < 0))
		way_in = how_to_get_in(seen == 0 ? path : dir);
	if (way_in && seen == 0)
		err_set(&call->err, -EACCES, "you may not use %s; %s", path, way_in);
	else if (way_in)
		err_set(&call->err, -EACCES, "you may not look into the directory of %s; %s", path,
			way_in);
	else if (seen == 0 && check_socket(path, NULL) == 0 &&
		 answers(path)) /* it hung up before curl saw that it had answered */
		err_set(&call->err, -EIO,
			"h2ofleetd turned us away: too many connections; try again later");
	else
		err_set(&call->err, -ENOTCONN,
			"h2ofleetd is not running (%s at %s); start it with 'systemctl start "
			"h2ofleetd', or your own with 'h2ofleetd'",
			seen == 0 ? "nobody answers" : "no socket", path);
}

static void send_call(struct call *call, const char *method, const char *target)
{
	struct client *c = call->client;
	_cleanup_free_ char *url = NULL;
	struct transfer *t = xcalloc(1, sizeof(*t));
	CURL *easy = curl_easy_init();

	if (!easy)
		no_memory(0);
	url = xasprintf("http://localhost%s", target);
	t->call = call;
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, c->socket);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->error);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
	if (call->body && !streq(method, "GET")) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
	}
	curl_multi_add_handle(c->multi, easy);
	call->easy = easy;
}

static void try_call(struct call *call, const char *method, const char *target)
{
	_cleanup_(err_clear) struct err e = ERR_NULL;
	int r = check_socket(call->client->socket, &e);

	call->unreached = r == -ENOENT || (r == -EACCES && access(call->client->socket, F_OK) < 0);
	call->done = r < 0 && !call->unreached;
	if (r == 0)
		send_call(call, method, target);
	else if (call->done)
		err_set(&call->err, r, "%s", err_msg(&e));
}

/* `body` and `headers` are the call's then. */
static struct call *begin_with(struct client *c, const char *method, const char *target, char *body,
	struct curl_slist *headers)
{
	struct call *call = xcalloc(1, sizeof(*call));

	call->client = c;
	call->body = body;
	call->headers = headers;
	call->log_position = -1;
	try_call(call, method, target);
	call->next = c->calls;
	c->calls = call;
	return call;
}

static struct call *begin(struct client *c, const char *method, const char *target)
{
	return begin_with(c, method, target, NULL, NULL);
}

struct call *client_send(
	struct client *c, const char *method, const char *target, json_t *body, const char *etag)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	_cleanup_free_ char *match = etag ? xasprintf("If-Match: %s", etag) : NULL;
	char *text = json_dumps(body, JSON_COMPACT);

	json_decref(body);
	headers = curl_slist_append(headers, "Expect:"); /* no waiting for a 100 */
	if (match)
		headers = curl_slist_append(headers, match);
	return begin_with(c, method, target, text, headers);
}

struct call *client_begin(struct client *c, const char *method, const char *fmt, ...)
{
	_cleanup_free_ char *target = NULL;
	va_list ap;

	va_start(ap, fmt);
	target = xvasprintf(fmt, ap);
	va_end(ap);
	return begin(c, method, target);
}

struct call *client_stream(struct client *c, const char *target,
	void (*sink)(const char *data, size_t n, void *arg), void *arg)
{
	struct call *call = begin(c, "GET", target);

	call->sink = sink;
	call->sink_arg = arg;
	return call;
}

void call_ask_again(struct call *call, bool was_there, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	call->cut_ms = was_there ? clock_monotonic_ms() : 0;
	free(call->again);
	call->again = xvasprintf(fmt, ap);
	va_end(ap);
}

static void judge_problem(struct call *call)
{
	const char *detail = json_string_value(json_object_get(call->json, "detail"));

	if (detail)
		err_set(&call->err, -EPROTO, "%s", detail);
	else
		err_set(&call->err, -EPROTO, "the daemon answered with HTTP status %d",
			call->status);
}

static void detach(struct call *call)
{
	struct transfer *t;

	if (!call->easy)
		return;
	t = transfer_of(call->easy);
	curl_multi_remove_handle(call->client->multi, call->easy);
	curl_easy_cleanup(call->easy);
	call->easy = NULL;
	strbuf_free(&t->body);
	free(t);
}

/* The daemon went away, and the next may not be there yet. */
static bool ask_again(struct call *call, CURLcode result)
{
	bool cut = result != CURLE_OK && result != CURLE_COULDNT_CONNECT;

	if (!call->again || result == CURLE_OK)
		return false;
	if (cut)
		call->cut_ms = clock_monotonic_ms();
	if (!call->cut_ms || clock_monotonic_ms() > call->cut_ms + NEXT_DAEMON_MS)
		return false;
	call->to_begin = true;
	return true;
}

/* There was no socket to connect to. */
static void judge_unreached(struct client *c)
{
	for (struct call *call = c->calls; call; call = call->next) {
		if (!call->unreached)
			continue;
		call->unreached = false;
		if (ask_again(call, CURLE_COULDNT_CONNECT))
			continue;
		no_daemon(call);
		call->done = true;
	}
}

/* After a while, for the next daemon needs one; then it is looked at its socket right before. */
static void begin_again(struct client *c)
{
	bool some = false;

	for (struct call *call = c->calls; call; call = call->next)
		some |= call->to_begin;
	if (some)
		usleep(AGAIN_MS * 1000);
	for (struct call *call = c->calls; call; call = call->next) {
		if (!call->to_begin)
			continue;
		call->to_begin = false;
		try_call(call, "GET", call->again);
	}
}

static void call_done(struct call *call, CURLcode result)
{
	struct transfer *t = transfer_of(call->easy);
	long status = 0;

	if (ask_again(call, result)) {
		detach(call);
		return;
	}

	call->done = true;
	curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
	if (result == CURLE_OK) {
		call->status = (int)status;
		call->text = strbuf_take(&t->body);
		call->json = json_loads(call->text, 0, NULL);
		if (!call_ok(call))
			judge_problem(call);
	} else if (result == CURLE_COULDNT_CONNECT) {
		no_daemon(call);
	} else {
		err_set(&call->err, -EIO, "the daemon did not answer: %s",
			*t->error ? t->error : curl_easy_strerror(result));
	}
	detach(call);
}

void client_turn(struct client *c, int timeout_ms)
{
	CURLMsg *msg;
	int running, left;

	judge_unreached(c);
	begin_again(c);
	curl_multi_perform(c->multi, &running);
	if (running) {
		curl_multi_poll(c->multi, NULL, 0, timeout_ms, NULL);
		curl_multi_perform(c->multi, &running);
	}
	while ((msg = curl_multi_info_read(c->multi, &left)))
		if (msg->msg == CURLMSG_DONE)
			call_done(transfer_of(msg->easy_handle)->call, msg->data.result);
}

void client_finish(struct call *call)
{
	while (!call->done && !cli_interrupted())
		client_turn(call->client, 200);
}

void call_free(struct call *call)
{
	if (!call)
		return;
	for (struct call **at = &call->client->calls; *at; at = &(*at)->next) {
		if (*at == call) {
			*at = call->next;
			break;
		}
	}
	detach(call);
	json_decref(call->json);
	free(call->text);
	free(call->again);
	free(call->body);
	curl_slist_free_all(call->headers);
	err_clear(&call->err);
	free(call);
}

void call_freep(struct call **call)
{
	call_free(*call);
}

bool call_ok(const struct call *call)
{
	return call->status >= 200 && call->status < 300;
}

int call_exit(const struct call *call)
{
	json_t *cloud = json_object_get(call->json, "cloud");
	const char *state = json_string_value(json_object_get(cloud, "state"));
	const char *type = json_string_value(json_object_get(call->json, "type"));
	int code = state ? cli_state_exit(state) : CLI_ERROR;

	if (cli_interrupted() && !call->done)
		return CLI_INTERRUPTED;
	if (call->err.code == -ENOTCONN || streq_null(type, "urn:h2ofleet:problem:no-such-cloud"))
		return CLI_ABSENT;
	return code == CLI_OK ? CLI_ERROR : code;
}

int call_complain(struct cli *cli, const struct call *call)
{
	int code = call_exit(call);

	if (code == CLI_INTERRUPTED)
		return cli_fail(cli, code, "interrupted");
	return cli_fail(cli, code, "%s", err_msg(&call->err));
}

json_t *client_get(struct cli *cli, struct client *c, int *code, const char *fmt, ...)
{
	_cleanup_(call_freep) struct call *call = NULL;
	_cleanup_free_ char *target = NULL;
	va_list ap;

	va_start(ap, fmt);
	target = xvasprintf(fmt, ap);
	va_end(ap);
	call = client_begin(c, "GET", "%s", target);
	client_finish(call);
	*code = CLI_OK;
	if (!call_ok(call))
		*code = call_complain(cli, call);
	else if (!call->json)
		*code = cli_fail(cli, CLI_ERROR, "the daemon's answer is no JSON");
	return *code == CLI_OK ? json_incref(call->json) : NULL;
}

char *client_escape(const char *s)
{
	struct strbuf b = STRBUF_NULL;

	for (; *s; s++) {
		if ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			(*s >= '0' && *s <= '9') || strchr("-_~", *s))
			strbuf_add(&b, s, 1);
		else
			strbuf_printf(&b, "%%%02X", (unsigned char)*s);
	}
	return strbuf_take(&b);
}

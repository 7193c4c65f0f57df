#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "cli/h2o.h"

#include <curl/curl.h>
#include <errno.h>

#include "base/clock.h"
#include "base/strbuf.h"
#include "base/text.h"
#include "cli/show.h"
#include "drv/http.h"

#define CONNECT_MS 5000
#define QUICK_MS   30000 /* for what needs no computing */
/* What is not saved is held in memory. */
#define MAX_BODY (1u << 30)
#define MAX_HEAD (64u << 10)

/* A request that is on its way. */
struct exchange {
	struct h2o *h;
	const struct h2o_request *rq;
	struct h2o_answer *a;
	struct strbuf body, head;
	struct download download;
	struct err failure; /* of ours, while the answer came */
	char *disposition;  /* owned */
	char error[CURL_ERROR_SIZE];
};

/* --- where it is -------------------------------------------------------------------------- */

static bool is_usable(const json_t *cloud, bool wake)
{
	return json_is_string(json_object_get(cloud, "endpoint")) || (wake && show_is_armed(cloud));
}

static int take_place(struct h2o *h, const json_t *cloud, bool wake)
{
	const char *url = json_string_value(json_object_get(cloud, "endpoint"));
	size_t len;

	if (!is_usable(cloud, wake))
		return connect_not_usable(h->cli, cloud);
	if (!url)
		url = json_string_value(json_object_get(json_object_get(cloud, "gate"), "url"));
	for (len = strlen(url); len && url[len - 1] == '/';)
		len--;
	h->url = xstrndup(url, len);
	return CLI_OK;
}

int h2o_open(struct h2o *h, struct cli *cli, const char *cloud, bool wake)
{
	_cleanup_(client_freep) struct client *c = NULL;
	_cleanup_free_ char *name = NULL;
	const char *auth = getenv("H2OFLEET_H2O_AUTH");
	json_t *j;
	int code;

	*h = (struct h2o){.cli = cli};
	if (!cli_name_ok(cli, cloud))
		return CLI_USAGE;
	c = client_new(cli->socket);
	name = client_escape(cloud);
	j = client_get(cli, c, &code, "/v1/clouds/%s", name);
	if (j)
		code = take_place(h, j, wake);
	json_decref(j);
	if (code != CLI_OK)
		return code;
	if (http_begin(true) < 0)
		no_memory(0);
	h->name = xstrdup(cloud);
	h->auth = auth && *auth ? xstrdup(auth) : NULL;
	h->share = curl_share_init();
	if (!h->share)
		no_memory(0);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_COOKIE);
	curl_share_setopt(h->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_CONNECT);
	return CLI_OK;
}

void h2o_close(struct h2o *h)
{
	curl_easy_cleanup(h->easy);
	if (h->share) {
		curl_share_cleanup(h->share);
		curl_global_cleanup();
	}
	if (h->trace)
		fclose(h->trace);
	free(h->name);
	free(h->url);
	free(h->auth);
	free(h->cookies);
	*h = (struct h2o){0};
}

/* --- an answer ---------------------------------------------------------------------------- */

static bool good_status(CURL *easy)
{
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return status >= 200 && status < 300;
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct exchange *x = arg;

	n *= size;
	if (x->rq->save_to && good_status(x->h->easy)) {
		if (!x->download.name && x->disposition)
			x->download.name = download_name(x->disposition);
		return download_write(&x->download, data, n, &x->failure) < 0 ? 0 : n;
	}
	if (x->body.len + n > MAX_BODY) {
		err_set(&x->failure, -EFBIG, "the answer is too large for memory: use -o FILE");
		return 0;
	}
	strbuf_add(&x->body, data, n);
	return n;
}

static size_t on_head(char *data, size_t size, size_t n, void *arg)
{
	static const char name[] = "Content-Disposition:";
	struct exchange *x = arg;
	_cleanup_free_ char *line = xstrndup(data, size * n);

	if (strncasecmp(line, name, strlen(name)) == 0)
		replace_str(&x->disposition, line + strlen(name));
	line[strcspn(line, "\r\n")] = '\0';
	if (has_prefix(line, "HTTP/")) /* of the last answer, when we were sent on */
		strbuf_free(&x->head);
	if (*line && x->head.len < MAX_HEAD)
		strbuf_printf(&x->head, "%s\n", line);
	return size * n;
}

static int on_debug(CURL *easy _unused_, curl_infotype type, char *data, size_t n, void *arg)
{
	if (type == CURLINFO_HEADER_OUT || type == CURLINFO_HEADER_IN)
		h2o_trace_headers(arg, type == CURLINFO_HEADER_OUT ? '>' : '<', data, n);
	return 0;
}

static int on_progress(void *arg _unused_, curl_off_t dltotal _unused_, curl_off_t dlnow _unused_,
	curl_off_t ultotal _unused_, curl_off_t ulnow _unused_)
{
	return cli_interrupted();
}

/* H2O puts "\n\nERROR MESSAGE:\n\n" in front, and lines behind. Owned by the caller. */
static char *plain_message(const char *s)
{
	static const char heading[] = "ERROR MESSAGE:";
	size_t len;

	s += strspn(s, " \r\n\t");
	if (has_prefix(s, heading))
		s += strlen(heading);
	s += strspn(s, " \r\n\t");
	len = strlen(s);
	while (len && strchr(" \r\n\t", s[len - 1]))
		len--;
	return xstrndup(s, len);
}

/* An H2OErrorV3, or H2OModelBuilderErrorV3, or what Jetty says in HTML. */
static void judge_status(struct h2o_answer *a)
{
	const char *msg = json_string_value(json_object_get(a->json, "msg"));
	const char *more = json_string_value(json_object_get(a->json, "exception_msg"));
	_cleanup_free_ char *text = plain_message(msg && *msg ? msg : more ? more : "");

	a->explained = *text;
	if (*text)
		err_set(&a->err, -EPROTO, "H2O answered with HTTP status %d: %s", a->status, text);
	else
		err_set(&a->err, -EPROTO, "H2O answered with HTTP status %d%s", a->status,
			a->status == 401 ? ": it wants a login ($H2OFLEET_H2O_AUTH)" : "");
}

/* Before it said a word: that is how a gate turns people away, which speaks no HTTP. */
static bool hung_up(CURL *easy, CURLcode result)
{
	long status = 0;

	curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
	return !status && (result == CURLE_RECV_ERROR || result == CURLE_SEND_ERROR ||
				  result == CURLE_GOT_NOTHING);
}

static void judge_failure(struct exchange *x, CURLcode result)
{
	struct h2o_answer *a = x->a;

	a->status = 0;
	if (cli_interrupted())
		err_set(&a->err, -EINTR, "interrupted");
	else if (x->failure.code)
		err_set(&a->err, x->failure.code, "%s", err_msg(&x->failure));
	else if (result == CURLE_COULDNT_CONNECT)
		err_set(&a->err, -ECONNREFUSED, "cloud '%s' cannot be reached at %s: %s",
			x->h->name, x->h->url, x->error);
	else if (result == CURLE_OPERATION_TIMEDOUT)
		err_set(&a->err, -ETIMEDOUT, "cloud '%s' did not answer in time: %s", x->h->name,
			x->error);
	else if (result == CURLE_PEER_FAILED_VERIFICATION)
		err_set(&a->err, -EPROTO,
			"cloud '%s' cannot be trusted: %s ('h2ofleet api' has --cacert FILE)",
			x->h->name, *x->error ? x->error : curl_easy_strerror(result));
	else if (hung_up(x->h->easy, result))
		err_set(&a->err, -ECONNRESET,
			"cloud '%s' hung up (%s): it was lost just now, or its gate does not let "
			"you in (key gate_allow; 'h2ofleet events %s' says so)",
			x->h->name, *x->error ? x->error : curl_easy_strerror(result), x->h->name);
	else
		err_set(&a->err, -EIO, "cloud '%s': %s", x->h->name,
			*x->error ? x->error : curl_easy_strerror(result));
}

static void judge(struct exchange *x, CURLcode result)
{
	struct h2o_answer *a = x->a;
	long status = 0;
	char *type = NULL;

	curl_easy_getinfo(x->h->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(x->h->easy, CURLINFO_CONTENT_TYPE, &type);
	if (result != CURLE_OK) {
		judge_failure(x, result);
		return;
	}
	a->status = (int)status;
	a->head = x->head.len ? strbuf_take(&x->head) : NULL;
	a->type = xstrdup_null(type);
	if (x->rq->save_to && good_status(x->h->easy)) {
		if (!x->download.name && x->disposition)
			x->download.name = download_name(x->disposition);
		if (download_finish(&x->download, &a->err) == 0)
			a->saved_as = TAKE_PTR(x->download.path);
		return;
	}
	a->len = x->body.len;
	a->text = strbuf_take(&x->body);
	if (type && strcasestr(type, "json"))
		a->json = json_loadb(a->text, a->len, JSON_ALLOW_NUL, NULL);
	if (!good_status(x->h->easy))
		judge_status(a);
}

/* --- a request ---------------------------------------------------------------------------- */

char *h2o_encode(const char *key, const char *value)
{
	_cleanup_free_ char *k = client_escape(key), *v = client_escape(value);

	return xasprintf("%s=%s", k, v);
}

/* "a=1&b=2". Owned by the caller. */
static char *encode_all(const struct strv *data)
{
	struct strbuf b = STRBUF_NULL;

	for (size_t i = 0; data && i < data->n; i++) {
		_cleanup_free_ char *key = xstrndup(data->v[i], strcspn(data->v[i], "="));
		const char *value = data->v[i] + strlen(key);
		_cleanup_free_ char *pair = h2o_encode(key, *value ? value + 1 : "");

		strbuf_printf(&b, "%s%s", i ? "&" : "", pair);
	}
	return strbuf_take(&b);
}

static bool data_in_query(const struct h2o_request *rq)
{
	return rq->file || streq(rq->method, "GET") || streq(rq->method, "HEAD") ||
	       streq(rq->method, "DELETE");
}

static char *make_url(const struct h2o *h, const struct h2o_request *rq, const char *data)
{
	if (!*data || !data_in_query(rq))
		return xasprintf("%s%s", h->url, rq->path);
	return xasprintf("%s%s%c%s", h->url, rq->path, strchr(rq->path, '?') ? '&' : '?', data);
}

/* Its body. `data` stays valid until the end. */
static void set_body(CURL *easy, const struct h2o_request *rq, const char *data, curl_mime **mime)
{
	if (rq->file) {
		curl_mimepart *part;

		*mime = curl_mime_init(easy);
		part = curl_mime_addpart(*mime);
		curl_mime_name(part, "file");
		curl_mime_filedata(part, rq->file);
		curl_easy_setopt(easy, CURLOPT_MIMEPOST, *mime);
	} else if (rq->json) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, rq->json);
	} else if (!data_in_query(rq)) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, data);
	} else if (streq(rq->method, "HEAD")) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	}
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, rq->method);
}

/* How we behave, whatever is asked. */
static void set_manners(struct exchange *x)
{
	CURL *easy = x->h->easy;

	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "h2ofleet/" PACKAGE_VERSION);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, x->error);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)x->rq->timeout_ms);
	/* As Python does: GET / leads to Flow. */
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, data_in_query(x->rq) ? 1L : 0L);
	curl_easy_setopt(easy, CURLOPT_MAXREDIRS, 5L);
	curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
	if (x->h->cookies)
		curl_easy_setopt(easy, CURLOPT_COOKIE, x->h->cookies);
	if (x->h->auth) {
		curl_easy_setopt(easy, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
		curl_easy_setopt(easy, CURLOPT_USERPWD, x->h->auth);
	}
	if (x->h->trace) {
		curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L);
		curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
		curl_easy_setopt(easy, CURLOPT_DEBUGDATA, x->h);
	}
}

static void set_trust(const struct h2o *h)
{
	if (h->ca)
		curl_easy_setopt(h->easy, CURLOPT_CAINFO, h->ca);
	if (h->insecure) {
		curl_easy_setopt(h->easy, CURLOPT_SSL_VERIFYPEER, 0L);
		curl_easy_setopt(h->easy, CURLOPT_SSL_VERIFYHOST, 0L);
	}
}

/* Each request has a handle of its own, as in drv/http.c: H2O's answer to the next could write into
 * what libcurl has freed of the one before. Connections and cookies are shared. */
static void make_easy(struct h2o *h)
{
	curl_easy_cleanup(h->easy);
	h->easy = curl_easy_init();
	if (!h->easy)
		no_memory(0);
	/* Cookies that are set are kept: an expired one switches that on, and must come first, for
	 * it is not switched on by those that are shared. */
	curl_easy_setopt(h->easy, CURLOPT_COOKIELIST,
		"Set-Cookie: none=; expires=Thu, 01 Jan 1970 00:00:00 GMT");
	curl_easy_setopt(h->easy, CURLOPT_SHARE, h->share);
}

static void perform(struct exchange *x)
{
	_cleanup_free_ char *data = encode_all(x->rq->data), *url = make_url(x->h, x->rq, data);
	struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
	curl_mime *mime = NULL;

	if (x->rq->json)
		headers = curl_slist_append(headers, "Content-Type: application/json");
	make_easy(x->h);
	set_manners(x);
	set_trust(x->h);
	set_body(x->h->easy, x->rq, data, &mime);
	curl_easy_setopt(x->h->easy, CURLOPT_URL, url);
	curl_easy_setopt(x->h->easy, CURLOPT_HTTPHEADER, headers);
	judge(x, curl_easy_perform(x->h->easy));
	curl_slist_free_all(headers);
	curl_mime_free(mime);
}

static bool exchange(struct h2o *h, const struct h2o_request *rq, struct h2o_answer *a)
{
	struct exchange x = {.h = h, .rq = rq, .a = a, .download = {.to = rq->save_to, .fd = -1}};
	uint64_t begun = clock_monotonic_ms();

	*a = H2O_ANSWER_NULL;
	h2o_trace_request(h, rq);
	perform(&x);
	h2o_trace_answer(h, a, clock_monotonic_ms() - begun);
	download_clear(&x.download);
	strbuf_free(&x.body);
	strbuf_free(&x.head);
	free(x.disposition);
	err_clear(&x.failure);
	return a->status && !a->err.code;
}

/* --- locking ------------------------------------------------------------------------------ */

/* Said once: from then on no member gets in, and whoever wanted the cloud to grow should know. */
static void warn_of_lock(struct h2o *h, const struct h2o_request *rq)
{
	const struct h2o_request ask = {
		.method = "GET", .path = "/3/Cloud?skip_ticks=true", .timeout_ms = QUICK_MS};
	struct h2o_answer a;

	if (h->quiet || h->lock_told || !h2o_locks(rq->method, rq->path))
		return;
	h->lock_told = true;
	if (exchange(h, &ask, &a) && json_is_false(json_object_get(a.json, "locked")))
		cli_say(h->cli,
			"warning: %s %s locks cloud '%s', which is not locked yet: no node can "
			"join it "
			"any more (-q silences this)",
			rq->method, rq->path, h->name);
	h2o_answer_clear(&a);
}

bool h2o_ask(struct h2o *h, const struct h2o_request *rq, struct h2o_answer *a)
{
	warn_of_lock(h, rq);
	return exchange(h, rq, a);
}

void h2o_answer_clear(struct h2o_answer *a)
{
	free(a->type);
	free(a->text);
	free(a->head);
	free(a->saved_as);
	json_decref(a->json);
	err_clear(&a->err);
	*a = H2O_ANSWER_NULL;
}

int h2o_complain(struct h2o *h, const struct h2o_answer *a)
{
	return cli_fail(h->cli, a->err.code == -EINTR ? CLI_INTERRUPTED : CLI_ERROR, "%s",
		a->err.code ? err_msg(&a->err) : "H2O's answer is no JSON");
}

/* The JSON of a good answer; takes the answer. */
static json_t *json_of(struct h2o *h, bool good, struct h2o_answer *a, int *code)
{
	json_t *j = good ? json_incref(a->json) : NULL;

	*code = j ? CLI_OK : h2o_complain(h, a);
	h2o_answer_clear(a);
	return j;
}

json_t *h2o_get(struct h2o *h, int *code, const char *fmt, ...)
{
	_cleanup_free_ char *path = NULL;
	struct h2o_request rq = {.method = "GET", .timeout_ms = QUICK_MS};
	struct h2o_answer a;
	va_list ap;

	va_start(ap, fmt);
	path = xvasprintf(fmt, ap);
	va_end(ap);
	rq.path = path;
	return json_of(h, h2o_ask(h, &rq, &a), &a, code);
}

json_t *h2o_rapids(struct h2o *h, int *code, const char *session, const char *fmt, ...)
{
	_cleanup_(strv_free) struct strv data = STRV_NULL;
	_cleanup_free_ char *ast = NULL;
	struct h2o_request rq = {
		.method = "POST", .path = "/99/Rapids", .data = &data, .timeout_ms = QUICK_MS};
	struct h2o_answer a;
	va_list ap;

	va_start(ap, fmt);
	ast = xvasprintf(fmt, ap);
	va_end(ap);
	strv_printf(&data, "ast=%s", ast);
	if (session)
		strv_printf(&data, "session_id=%s", session);
	return json_of(h, h2o_ask(h, &rq, &a), &a, code);
}

#include <stdio.h>

#include "core/internal.h"

static char *make_url(
	const struct supervised *s, const char *address, uint16_t port, const char *path)
{
	const char *context = s->cloud->conf->context_path;

	while (context && *context == '/')
		context++;
	return xasprintf("http://%s:%u%s%s%s", address, port, context && *context ? "/" : "",
		context ? context : "", path);
}

char *supervised_url(const struct supervised *s, unsigned node, const char *path)
{
	return make_url(s, MEMBER_ADDR, s->cloud->nodes[node].api_port, path);
}

char *supervised_endpoint_url(const struct supervised *s)
{
	return make_url(s, s->cloud->endpoint.addr, s->cloud->endpoint.port, "");
}

static void judge_full(const struct http_response *rsp, struct answer *a,
	struct h2o_cloud_view *view, struct err *e)
{
	if (h2o_cloud_view_parse(rsp->body, rsp->body_len, view, e) == 0) {
		a->view = view;
		return;
	}
	a->kind = ANSWER_BROKEN;
	a->text = err_msg(e);
}

static enum answer_kind kind_of(const struct http_response *rsp)
{
	switch (rsp->result) {
	case HTTP_OK:
		return rsp->status == 200 ? ANSWER_OK : ANSWER_BROKEN;
	case HTTP_REFUSED:
		return ANSWER_REFUSED;
	case HTTP_TIMEOUT:
		return ANSWER_TIMEOUT;
	case HTTP_NOT_ASKED:
		return ANSWER_UNASKED;
	case HTTP_BROKEN:
		break;
	}
	return ANSWER_BROKEN;
}

static void cannot_ask(struct fleet *f, int own_errno)
{
	_cleanup_free_ char *sentence = xasprintf(
		"no connection to a node: %s%s", strerror(own_errno), trouble_advice(-own_errno));

	trouble_set(f, TROUBLE_POLLS, NULL, sentence);
}

/* Kept connections may still serve some nodes when there can be none to others. */
static void can_ask(struct fleet *f)
{
	if (!trouble_is_set(f, TROUBLE_POLLS, NULL))
		return;
	for (size_t i = 0; i < f->n; i++)
		if (cloud_is_blind(f->clouds[i]->cloud))
			return;
	trouble_clear(f, TROUBLE_POLLS, NULL);
}

static void on_answer(const struct http_response *rsp, void *arg)
{
	struct member *m = arg;
	struct supervised *s = m->s;
	_cleanup_(h2o_cloud_view_free) struct h2o_cloud_view view = {0};
	_cleanup_(err_clear) struct err e = ERR_NULL;
	struct answer a = {.kind = kind_of(rsp),
		.full = m->poll_full,
		.good = rsp->cluster_good,
		.h2o_boot_ms = rsp->cluster_id,
		.text = rsp->error};

	m->poll = NULL;
	oom_sample(s->fleet);
	if (a.kind == ANSWER_OK && a.full)
		judge_full(rsp, &a, &view, &e);
	if (a.kind == ANSWER_UNASKED)
		cannot_ask(s->fleet, rsp->own_errno);
	supervised_feed(
		s, &(struct cloud_event){.type = EVENT_ANSWER, .node = m->index, .answer = &a});
	if (a.kind != ANSWER_UNASKED)
		can_ask(s->fleet);
}

void polls_start(struct supervised *s, unsigned node, bool full, uint64_t timeout_ms)
{
	struct member *m = &s->members[node];
	_cleanup_free_ char *url = supervised_url(s, node, "/3/Cloud?skip_ticks=true");
	struct http_spec spec = {
		.url = url, .method = full ? "GET" : "HEAD", .timeout_ms = timeout_ms};
	/* The event may have to wait its turn. */
	static const struct answer unasked[] = {
		{.kind = ANSWER_UNASKED}, {.kind = ANSWER_UNASKED, .full = true}};
	int r;

	polls_cancel(m);
	m->poll_full = full;
	r = http_start(s->fleet->http, &spec, on_answer, m, &m->poll);
	if (r < 0) {
		m->poll = NULL;
		cannot_ask(s->fleet, -r);
		supervised_feed(
			s, &(struct cloud_event){
				   .type = EVENT_ANSWER, .node = node, .answer = &unasked[full]});
	}
}

void polls_cancel(struct member *m)
{
	if (m->poll)
		http_cancel(m->poll);
	m->poll = NULL;
}

static void on_shutdown_answer(const struct http_response *rsp, void *arg)
{
	struct supervised *s = arg;

	(void)rsp; /* the exits tell */
	s->request = NULL;
}

void polls_rest_shutdown(struct supervised *s)
{
	_cleanup_free_ char *url = supervised_url(s, 0, "/3/Shutdown");
	struct http_spec spec = {
		.url = url, .method = "POST", .timeout_ms = s->cloud->conf->stop_timeout_ms};

	if (s->request)
		http_cancel(s->request);
	if (http_start(s->fleet->http, &spec, on_shutdown_answer, s, &s->request) < 0)
		s->request = NULL; /* the next rung of the ladder follows anyway */
}

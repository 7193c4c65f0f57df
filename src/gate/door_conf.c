#include <arpa/inet.h>
#include <errno.h>

#include "base/err.h"
#include "gate/gate.h"

static int parse_mode(const char *s, enum door_mode *mode)
{
	static const char *const words[] = {
		[MODE_REFUSE] = "refuse", [MODE_HOLD] = "hold", [MODE_OPEN] = "open"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		if (streq(s, words[i])) {
			*mode = (enum door_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_member(const char *address, json_int_t port, struct door_conf *c)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&c->member;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&c->member;

	if (port < 0 || port > 65535 || (port == 0 && c->mode == MODE_OPEN))
		return -EINVAL;
	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)port);
		c->member_len = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)port);
		c->member_len = sizeof(*v6);
		return 0;
	}
	return -EINVAL;
}

static int parse_users(const json_t *uids, const json_t *names, struct door_conf *c)
{
	json_t *one;
	size_t i;

	c->uids = xcalloc(json_array_size(uids) + 1, sizeof(*c->uids));
	json_array_foreach (uids, i, one) {
		if (!json_is_integer(one) || json_integer_value(one) < 0 ||
			json_integer_value(one) >= UID_UNKNOWN)
			return -EINVAL;
		c->uids[c->n_uids++] = (uid_t)json_integer_value(one);
	}
	json_array_foreach (names, i, one) {
		const char *name = json_string_value(one);

		if (!name || (!has_prefix(name, "group:") && !has_prefix(name, "user:")))
			return -EINVAL;
		strv_add(&c->names, name);
	}
	return 0;
}

static int parse(json_t *body, struct door_conf *c, struct err *e)
{
	const char *mode = "", *address = "";
	json_t *uids = NULL, *names = NULL;
	json_int_t port = 0, hold_ms = 0, max_held = 0;
	int knock = 0, anyone = 0, foreign = 0;
	json_error_t error;

	if (json_unpack_ex(body, &error, 0,
		    "{s:s, s:s, s:s, s:I, s?I, s?I, s?b, s?b, s?b, s?o, s?o}", "cloud", &c->cloud,
		    "mode", &mode, "address", &address, "port", &port, "hold_ms", &hold_ms,
		    "max_held", &max_held, "knock", &knock, "anyone", &anyone, "foreign", &foreign,
		    "uids", &uids, "names", &names) < 0)
		return err_set(e, -EINVAL, "%s", error.text);
	if (parse_mode(mode, &c->mode) < 0)
		return err_set(e, -EINVAL, "there is no mode \"%s\"", mode);
	if (parse_member(address, port, c) < 0)
		return err_set(
			e, -EINVAL, "\"%s\" port %lld is no address", address, (long long)port);
	if (hold_ms < 0 || max_held < 0)
		return err_set(e, -EINVAL, "hold_ms and max_held cannot be negative");
	if (parse_users(uids, names, c) < 0)
		return err_set(e, -EINVAL, "uids or names is not a list of such");
	c->hold_ms = (uint64_t)hold_ms;
	c->max_held = (uint64_t)max_held;
	c->knock = knock;
	c->anyone = anyone;
	c->foreign = foreign;
	return 0;
}

int door_conf_parse(json_t *body, struct door_conf *out, struct err *e)
{
	int rc;

	*out = DOOR_CONF_NULL;
	rc = parse(body, out, e);
	if (rc < 0) {
		door_conf_clear(out);
		return rc;
	}
	out->body = json_incref(body);
	return 0;
}

void door_conf_clear(struct door_conf *c)
{
	json_decref(c->body);
	free(c->uids);
	strv_free(&c->names);
	*c = DOOR_CONF_NULL;
}

/* The JSON of those requests that have some: a cloud that is made, keys that are changed. What is
 * made can be written and read again, and has nothing that who asked may not set. The first byte:
 * which request, and who. */
#include "control.h"
#include "fuzz.h"

#include "conf/created.h"

void fuzz_begin(void)
{
	control_begin();
}

static void check_cloud(const struct cloud *c, bool group)
{
	_cleanup_free_ char *text = created_text(c->conf, NULL);
	_cleanup_free_ char *privileged = created_privileged_keys(c->conf);

	if (!c->conf->created)
		return;
	fuzz_check(text);
	fuzz_check(conf_cloud_name_valid(c->conf->name));
	fuzz_check_text(!group || !privileged, privileged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t how = fuzz_byte(&in);
	struct control_talk talk = {.group = how & 1};
	_cleanup_(strbuf_free) struct strbuf request = STRBUF_NULL;
	struct fleet *fleet;
	int status;

	strbuf_printf(&request,
		"%s HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nIf-Match: *\r\n"
		"Content-Length: %zu\r\n\r\n",
		how & 2 ? "PATCH /v1/clouds/mine/config" : "POST /v1/clouds", in.n);
	strbuf_add(&request, in.at, in.n);
	status = control_talk(&talk, request.s, request.len);
	fleet = control_fleet();
	fuzz_check(status != 0 && status != 500 && (fleet->n_clouds == 4) == (status == 201));
	for (size_t i = 0; i < fleet->n_clouds; i++)
		check_cloud(fleet->clouds[i], talk.group);
	return 0;
}

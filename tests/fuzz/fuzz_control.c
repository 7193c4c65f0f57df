/* The control socket: the bytes of one request or of several, as they come. Whatever they are, each
 * answer is HTTP with JSON, each refusal a problem, and a client that hangs up leaves nothing
 * behind. The first byte says who asks, and how; in front of it may stand 0xfe, and how it stands
 * with the fleet. */
#include "control.h"
#include "fuzz.h"

void fuzz_begin(void)
{
	control_begin();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	uint8_t first = fuzz_byte(&in), world = first == 0xfe ? fuzz_byte(&in) : 0;
	uint8_t how = first == 0xfe ? fuzz_byte(&in) : first;
	struct control_talk talk = {.group = how & 1,
		.half_open = how & 2,
		.step = how & 4 ? 1 + in.n / 8 : 0,
		.world = world};

	control_talk(&talk, (const char *)in.at, in.n);
	return 0;
}

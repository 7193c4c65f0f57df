/* Waiting without time: between waits_begin() and waits_end() the monotonic clock of this program
 * and of its libraries goes on only by what somebody waits for, in poll(2) or usleep(3), or by
 * waits_pass(). So a command that waits for minutes takes microseconds, and always as many turns.
 * The wall clock is left alone: libFuzzer has it. */
#pragma once

#include <stdint.h>

void waits_begin(void);
void waits_end(void);
/* Since waits_begin(). */
uint64_t waits_ms(void);
void waits_pass(uint64_t ms);

/* The control protocol's server over a real socket, with a fake fleet, in one loop with raw
 * clients. Nothing sleeps: client and server are polled together until the answer is there. */
#pragma once

#include "api/server.h"
#include "fake_fleet.h"

#define PATIENCE_MS 60000

struct fixture {
	uv_loop_t loop;
	struct fleet *fleet;
	struct cloud *dev;
	struct api *api;
	char dir[64];
	char socket[100];
	char events[100];
};

struct reply {
	int status;
	char *all; /* owned: headers and body */
	const char *body;
	json_t *json; /* owned */
};

/* For cmocka: *state becomes a struct fixture; the teardown finds what was left behind. */
int api_setup(void **state);
int api_teardown(void **state);
/* What the teardown does first: api_free(), and the loop to its end. */
void end_api(struct fixture *f);

int dial(const char *path);
/* Lets the server run until `fd` (-1: none) is ready or something happened in the loop. */
void turn(struct fixture *f, int fd, short events);
void send_text(struct fixture *f, int fd, const char *text, size_t len);
/* Sends a request that closes the connection; returns it. */
int ask(struct fixture *f, const char *method, const char *target);
/* Reads to the end; closes the fd. */
struct reply take_reply(struct fixture *f, int fd);
void reply_free(struct reply *r);
struct reply get(struct fixture *f, const char *method, const char *target);
/* A string of the answer's object. */
const char *field(const struct reply *r, const char *key);
void assert_problem(const struct reply *r, int status, const char *type);
/* Until so many requests wait in the server. */
void until_waiting(struct fixture *f, size_t n);

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, api_setup, api_teardown)

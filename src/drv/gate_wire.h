/* What the daemon and the gate say to each other, and what they share.
 *
 * The gate (h2ofleet-gate, src/gate/) is one process per fleet that outlives the daemon, as the
 * JVMs do. Its standard input is a listening unix socket (SOCK_SEQPACKET), made by the daemon at
 * state_dir/gate; each daemon in turn connects to it. Listening TCP sockets are bound by the
 * daemon, and both have them: so neither's death loses a port. They are bound to a port by its
 * number and have SO_REUSEADDR, or they could not stop listening and begin again.
 *
 * A message is one JSON object with a member "op", in one packet, with descriptors where the table
 * says so. Unknown members are ignored, unknown ops too: daemon and gate may be of different
 * versions as long as GATE_PROTOCOL is the same.
 *
 * daemon -> gate:
 *
 *	{"op":"hello", "protocol":1}
 *
 * is answered by hello, a door for each there is, and ready.
 *
 *	{"op":"ping"}
 *
 * is answered by {"op":"pong"}: it is well.
 *
 *	{"op":"door", "cloud":"dev", "mode":"open"|"hold"|"refuse",
 *	 "address":"127.0.0.1", "port":54322,
 *	 "hold_ms":15000, "max_held":1024, "knock":true|false,
 *	 "anyone":true|false, "uids":[0,1000], "names":["group:h2o","group:990","user:alice"],
 *	 "foreign":true|false}
 *
 * is how this cloud's door is from now on. Address and port are those of member 0 (port 0 when the
 * door is not open); knock: tell of connections that are held; anyone, uids, names: who may come
 * in, which root always may; foreign: its listeners are systemd's and must go on listening. A door
 * that the gate does not have comes with descriptors: the counters (memfd), one listener or two;
 * one that it has, with none.
 *
 *	{"op":"forget", "cloud":"dev"}
 *
 * closes the door's listeners and connections.
 *
 * gate -> daemon:
 *
 *	{"op":"hello", "protocol":1, "version":"0.1", "pid":4711}
 *	{"op":"door", ...}	as it was told, with descriptors
 *	{"op":"ready"}		all doors have been told
 *	{"op":"knock", "cloud":"dev"}
 *
 * A connection is held and "knock" is set: said once after each "door", and to each new daemon.
 *
 *	{"op":"refused", "cloud":"dev", "uid":1001|null, "count":3, "why":"..."}
 *	{"op":"unreachable", "cloud":"dev", "error":"Connection refused", "count":1}
 *
 * Somebody was turned away (uid null: it is not known who), or member 0 did not take a connection.
 * Said at once, then at most every 10 s for the same cloud and uid.
 *
 * open: connections pass. When a door is no longer open those that pass are closed at once. hold:
 * new ones are accepted and wait, at most hold_ms each; those that wait pass when it opens. refuse:
 * the listeners do not listen (shutdown(2): they stay bound), or, foreign ones, close each at once.
 */
#pragma once

#include <jansson.h>
#include <stdatomic.h>

#include "base/util.h"

#define GATE_PROTOCOL    1
#define GATE_MAX_MESSAGE 65536
#define GATE_MAX_FDS     3

/* In a memfd per door: written by the gate alone, read by the daemon at any time, and kept by both,
 * so it goes on over the lives of either. Times are CLOCK_MONOTONIC, ms. Counts begin with the
 * door. */
struct gate_counters {
	_Atomic uint64_t connections; /* passing now */
	_Atomic uint64_t held;        /* waiting now */
	_Atomic uint64_t accepted_total;
	_Atomic uint64_t passed_total; /* came through to member 0 */
	_Atomic uint64_t held_total;
	_Atomic uint64_t expired_total; /* waited hold_ms in vain */
	_Atomic uint64_t refused_total; /* turned away: who it was, or too many waiting */
	_Atomic uint64_t failed_total;  /* member 0 did not take it */
	_Atomic uint64_t closed_total;  /* cut off when the cloud was lost */
	_Atomic uint64_t bytes_in;      /* to member 0 */
	_Atomic uint64_t bytes_out;
	_Atomic uint64_t
		traffic_ms; /* when the last byte passed, or somebody began to wait; 0: never */
};

/* A message that came. Begins as GATE_MESSAGE_NULL. */
struct gate_message {
	json_t *body;          /* owned; an object with a string "op" */
	int fds[GATE_MAX_FDS]; /* owned; close-on-exec */
	unsigned n_fds;
};
#define GATE_MESSAGE_NULL ((struct gate_message){.body = NULL})
void gate_message_clear(struct gate_message *m);

/* Sends one; never blocks, never SIGPIPE. `body` and `fds` stay the caller's. 0; -EAGAIN when the
 * other side does not read; -EPIPE, -ECONNRESET when it is gone; -EMSGSIZE. */
int gate_send(int sock, const json_t *body, const int *fds, unsigned n_fds);

/* 1 and a message; 0 at the end; -EAGAIN when there is none; -EBADMSG for one that is not as above
 * (it is dropped); another negative errno. Never blocks. */
int gate_receive(int sock, struct gate_message *out);

/* Maps the counters of a memfd, making it large enough. NULL, and errno. */
struct gate_counters *gate_counters_map(int fd);
void gate_counters_unmap(struct gate_counters *c);
